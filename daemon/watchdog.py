"""systemd's watchdog (sd_watchdog_enabled(3)), fed only while the daemon's loops make progress.

Each loop notes when it last did, in memory that the daemon's processes share. The first process
compares, and reports to systemd, which kills a daemon that is silent and starts another one.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Mapping

from daemon.log import Log
from daemon.systemd import notify

LIMIT = 60.0
"""Seconds that a loop may take for one iteration."""
_LOOPS_MAX = mmap.PAGESIZE // 8


class WatchedLoop:
    """A loop as it notes its progress; any process may do so."""

    def __init__(self, beats: memoryview[float], number: int) -> None:
        self._beats, self._number = beats, number

    def beat(self) -> None:
        """To be called in each iteration."""
        self._beats[self._number] = time.monotonic()

    def end(self) -> None:
        """It runs no more, which is no fault."""
        self._beats[self._number] = 0.0


class Watchdog:
    """The loops, declared before the processes are forked and the threads are started."""

    def __init__(self, log: Log, env: Mapping[str, str] = os.environ) -> None:
        self._log = log
        # A double is stored at once. 0: the loop does not run.
        self._beats = memoryview(mmap.mmap(-1, _LOOPS_MAX * 8)).cast("d")
        self._names: list[str] = []
        self._stuck: tuple[str, ...] = ()
        # systemd names the process that it expects to hear of; a child would inherit the rest.
        is_ours = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._is_watched = is_ours and "WATCHDOG_USEC" in env

    def add(self, name: str) -> WatchedLoop:
        """Declare a loop. It counts from its first iteration on."""
        self._names.append(name)
        return WatchedLoop(self._beats, len(self._names) - 1)

    def check(self) -> None:
        """Feed the watchdog, or log which loops are stuck."""
        least = time.monotonic() - LIMIT
        stuck = tuple(n for n, at in zip(self._names, self._beats, strict=False) if 0 < at < least)
        if stuck and stuck != self._stuck:
            end = "systemd restarts podwired" if self._is_watched else "restart podwired"
            self._log.error(f"no progress for {LIMIT:.0f} s: {', '.join(stuck)}; {end}")
        self._stuck = stuck
        if self._is_watched and not stuck:
            notify("WATCHDOG=1")
