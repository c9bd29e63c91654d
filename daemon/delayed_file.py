"""A file that is written some time after what it holds has changed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from daemon.files import explain, make_folder, replace_file
from daemon.log import Log

T = TypeVar("T")

REST = 50
"""The time from a write to the next, in multiples of its CPU time: that costs 2 % of a core."""
RETRY = 10.0
"""Seconds after a write that failed."""


class DelayedFile(Generic[T]):
    """The newest of the values it is given, in a file in `dataDir`. Its threads wait for the disk.

    what: the values, in messages. soon, most: seconds from a change to its write at least, and at
    most. fault: why the last write failed; empty where it did not. log: where each new one goes.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        render: Callable[[T], bytes],
        *,
        soon: float,
        most: float = math.inf,
        log: Log | None = None,
    ) -> None:
        self.path, self.fault = path, ""
        self._what, self._render, self._soon, self._most = what, render, soon, most
        self._log, self._rests_until, self._at = log, 0.0, math.inf
        self._mutex, self._writing = threading.Lock(), threading.Lock()
        self._due: T | None = None
        self._timer: threading.Timer | None = None

    def update(self, value: T, pause: float | None = None) -> None:
        """Have that value written: soon, or after a pause where nothing is written before."""
        with self._mutex:
            self._due = value
            rest = min(self._most, max(self._soon, self._rests_until - time.monotonic()))
            self._schedule(rest if pause is None else pause)

    def close(self) -> None:
        """Write now what is due."""
        with self._mutex:
            if self._timer is not None:
                self._timer.cancel()
        self._write(retry=False)

    def _schedule(self, pause: float) -> None:
        at = time.monotonic() + pause
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at, self._timer = at, threading.Timer(pause, self._write)
        self._timer.name, self._timer.daemon = self.path.name, True
        self._timer.start()

    def _write(self, *, retry: bool = True) -> None:
        with self._writing:
            with self._mutex:
                value, self._due, self._timer = self._due, None, None
            if value is None:
                return
            began = time.thread_time()
            try:
                make_folder(self.path.parent)
                replace_file(self.path, self._render(value), 0o600, durable=True)
                self.fault = ""
            except OSError as error:
                self._note(explain(self._what, self.path, error, "dataDir"))
                if retry:
                    with self._mutex:
                        self._due = value if self._due is None else self._due
                        self._schedule(RETRY)
            self._rests_until = time.monotonic() + REST * (time.thread_time() - began)

    def _note(self, fault: str) -> None:
        if self._log and fault != self.fault:
            self._log.warning(fault)
        self.fault = fault
