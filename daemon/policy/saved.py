"""What the daemon knows of policies, in a file for the next daemon and for `podwirectl`."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

from daemon.config import POLICIES
from daemon.files import explain, make_folder, read_regular, replace_file
from daemon.policy.model import Facts
from daemon.policy.objects import facts_of, render_facts

FILE_MAX = 64 << 20  # bytes
SAVE_GAP = 2.0
"""Seconds between two writes, at least."""
_SHARE = 50
"""The same in multiples of the CPU time that a write takes."""


def saved_path(data_dir: Path) -> Path:
    """Where the file is."""
    return data_dir / POLICIES


def read_facts(path: Path) -> Facts:
    """The facts of such a file. Raises OSError, ValueError."""
    try:
        return facts_of([json.loads(read_regular(path, FILE_MAX))])
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


class SavedFacts:
    """The file. fault: why the last write failed; empty where it did not.

    It is written in a thread of its own, for that may wait for the disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.fault = ""
        self._unsaved: Facts | None = None
        self._failed: Facts | None = None
        self._next = 0.0
        self._thread: threading.Thread | None = None

    def read(self) -> Facts:
        """What an earlier daemon knew. Raises OSError, ValueError."""
        return read_facts(self._path)

    def change(self, facts: Facts) -> None:
        """Take what is to be written."""
        self._unsaved = facts

    def write(self) -> None:
        """Begin to write it, if that is due and the last write has ended."""
        is_busy = self._thread is not None and self._thread.is_alive()
        if is_busy or time.monotonic() < self._next:
            return
        self._unsaved, self._failed = self._unsaved or self._failed, None
        if self._unsaved is None:
            return
        facts, self._unsaved = self._unsaved, None
        self._thread = threading.Thread(target=self._write, args=(facts,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is not written yet, and wait for it."""
        if self._thread is not None:
            self._thread.join()
        if self._unsaved is not None:
            self._write(self._unsaved)

    def _write(self, facts: Facts) -> None:
        began = time.thread_time()
        try:
            make_folder(self._path.parent)
            replace_file(self._path, render_facts(facts), 0o600, durable=True)
            self.fault = ""
        except OSError as error:
            self.fault = explain("the policies", self._path, error, "dataDir")
            self._failed = facts
        took = time.thread_time() - began
        self._next = time.monotonic() + max(SAVE_GAP, _SHARE * took)
