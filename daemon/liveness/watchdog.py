"""The watchdog: which of the daemon's loops make no progress.

Each loop notes until when it will again, in memory that the daemon's processes share. The first
process compares, and reports to systemd (sd_watchdog_enabled(3)), which kills a daemon that is
silent and starts another one. Without systemd liveness probes ask for the same.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Mapping

from daemon.liveness.health_file import VARIABLE
from daemon.liveness.systemd import notify
from daemon.log import Log

LIMIT = 60.0
"""Seconds that a loop may take for one iteration, unless it asks for more."""
_LOOPS_MAX = mmap.PAGESIZE // 8


class WatchedLoop:
    """A loop as it notes its progress; any process may do so."""

    def __init__(self, ends: memoryview[float], number: int) -> None:
        self._ends, self._number = ends, number

    def beat(self, within: float = 0.0) -> None:
        """To be called in each iteration. within: seconds that this one may take; 0: LIMIT."""
        self._ends[self._number] = time.monotonic() + (within or LIMIT)

    def end(self) -> None:
        """It runs no more, which is no fault."""
        self._ends[self._number] = 0.0


Watch = Callable[[str], WatchedLoop]
"""Declares a loop of that name."""


def unwatched(_name: str) -> WatchedLoop:
    """A loop that nobody watches."""
    return WatchedLoop(memoryview(bytearray(8)).cast("d"), 0)


class Watchdog:
    """The loops. Those of other processes are declared before these are forked."""

    def __init__(self, log: Log, env: Mapping[str, str] = os.environ) -> None:
        self._log = log
        # A double is stored at once. 0: the loop does not run.
        self._ends = memoryview(mmap.mmap(-1, _LOOPS_MAX * 8)).cast("d")
        self._names: list[str] = []
        self._own = self.add("main thread")
        self._fault = ""
        # systemd names the process that it expects to hear of; a child would inherit the rest.
        is_ours = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._is_watched = is_ours and "WATCHDOG_USEC" in env
        self._is_probed = VARIABLE in env

    def add(self, name: str) -> WatchedLoop:
        """Declare a loop, or find it again. It counts from its first iteration on."""
        if name not in self._names:
            self._names.append(name)
        return WatchedLoop(self._ends, self._names.index(name))

    def describe_stall(self) -> str:
        """Which loops are stuck, the one that calls `check` among them; empty where none is.

        From any thread.
        """
        now = time.monotonic()
        stuck = [n for n, end in zip(self._names, self._ends, strict=False) if 0 < end < now]
        return f"no progress: {', '.join(stuck)}" if stuck else ""

    def check(self) -> str:
        """Feed the watchdog, or log which loops are stuck; these, as `describe_stall`."""
        self._own.beat()
        fault = self.describe_stall()
        if fault and fault != self._fault:
            self._log.error(f"{fault}; {self._remedy}")
        self._fault = fault
        if self._is_watched and not fault:
            notify("WATCHDOG=1")
        return fault

    @property
    def _remedy(self) -> str:
        if self._is_watched:
            return "systemd restarts podwired"
        return "the kubelet restarts podwired" if self._is_probed else "restart podwired"
