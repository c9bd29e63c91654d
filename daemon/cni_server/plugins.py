"""The IPAM plugins that calls of one process are delegated to: how many wait, and what runs.

A plugin that hangs holds the thread of each call that waits for it. Those are bounded, in all and
for each plugin, so that the calls of other networks find a thread (see `daemon.cni_server.shifts`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cni_plugin.errors import TRY_AGAIN, CniError
from cni_plugin.exec import kill_group
from daemon.log import Log

WAITING_MAX = 24
"""Calls that may wait for one plugin."""
ALL_WAITING_MAX = 40
"""Calls that may wait for plugins in all; less than two thirds of `shifts.THREADS`: behind
each there may be another call for the same attachment."""


class Plugins:
    """Who waits for which plugin, and the process groups of those that run."""

    def __init__(self, log: Log, most: int = WAITING_MAX, most_in_all: int = ALL_WAITING_MAX):
        self._log = log
        self._most, self._most_in_all = most, most_in_all
        self._mutex = threading.Lock()
        self._waiting = Counter[str]()
        self._told: set[str] = set()
        self._groups: set[int] = set()
        self._stopping = False

    @contextmanager
    def admitted(self, name: str) -> Iterator[None]:
        """Wait for the plugin of that name. Raises CniError where too many do already."""
        self._enter(name)
        try:
            yield
        finally:
            self._leave(name)

    @contextmanager
    def watched(self, group: int) -> Iterator[None]:
        """Have a process group ended by `stop`, as long as its number is no other's."""
        with self._mutex:
            self._groups.add(group)
            if self._stopping:
                kill_group(group)
        try:
            yield
        finally:
            with self._mutex:
                self._groups.discard(group)

    def stop(self) -> None:
        """End all that run, and what begins to run from now on."""
        with self._mutex:
            self._stopping = True
            for group in self._groups:
                kill_group(group)

    def _enter(self, name: str) -> None:
        with self._mutex:
            count, total = self._waiting[name], self._waiting.total()
            if count < self._most and total < self._most_in_all:
                self._waiting[name] += 1
                return
            told = name in self._told
            self._told.add(name)
        if count < self._most:
            words = f"{total} calls wait for IPAM plugins already, {count} of them for {name}"
        else:
            words = f"{count} calls wait for IPAM plugin {name} already"
        if not told:
            self._log.warning(f"{words}: further ones are refused until it answers")
        raise CniError(TRY_AGAIN, f"{words}; try again", "does it hang? podwired's log says more")

    def _leave(self, name: str) -> None:
        with self._mutex:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]
                self._told.discard(name)
