"""Processes that serve CNI calls beside the daemon's first one.

One interpreter lets one thread compute at a time, and a burst of calls could use more processors.
They are forked before the first thread starts, for a fork takes one thread along and the locks of
all. One that dies is not made anew: the others go on, and the log says it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from cni_plugin.exec import describe_end
from daemon.log import Log

PROCESSES = 2
"""Where the node has as many processors."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GAP = 0.01
_FAILED = 1


def processes_wanted() -> int:
    """How many processes this node has use for, the first one among them."""
    return min(PROCESSES, len(os.sched_getaffinity(0)))


class Crew:
    """The forked processes, as the first one sees them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._numbers: dict[int, int] = {}  # by process ID
        self._status = 0
        self.died = 0
        """How many ended without being told to, as far as `look` saw it."""

    def fork(self, count: int, work: Callable[[int], int]) -> None:
        """Start so many, each of which does `work(number)`, from 1 on, and ends with its status."""
        parent = os.getpid()
        for number in range(1, count + 1):
            # Python forgets the signals that a new process gets before its own part of the fork is
            # over (PyOS_AfterFork_Child), and the kernel delivers what waits as the first thing.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            pid = os.fork()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if pid == 0:
                _be_helper(parent, partial(work, number), self._log)
            self._numbers[pid] = number

    def signal(self, number: int) -> None:
        """Pass a signal on to all of them."""
        for pid in tuple(self._numbers):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def look(self) -> list[int]:
        """Say who died, and tell their numbers."""
        dead = self._reap()
        for pid, (_number, status) in dead.items():
            why = "its share of CNI calls is this process's until podwired is begun anew"
            end = describe_end(os.waitstatus_to_exitcode(status))
            self._log.error(f"the process {pid} for CNI calls ended ({end}): {why}")
        self.died += len(dead)
        return [number for number, _status in dead.values()]

    def wait(self, seconds: float) -> int:
        """Wait for their end, and force it then; the exit status of the worst of these."""
        until = time.monotonic() + seconds
        while self._numbers and time.monotonic() < until:
            for _number, status in self._reap().values():
                self._note(status)
            time.sleep(_GAP)
        self.signal(signal.SIGKILL)
        for pid in self._numbers:
            self._note(os.waitpid(pid, 0)[1])
        self._numbers.clear()
        return self._status

    def _reap(self) -> dict[int, tuple[int, int]]:
        """Numbers and statuses of those that have ended, by process ID."""
        dead = {}
        for pid in tuple(self._numbers):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                dead[pid] = self._numbers.pop(pid), status
        return dead

    def _note(self, status: int) -> None:
        self._status = self._status or (_FAILED if status else 0)


def _be_helper(parent: int, work: Callable[[], int], log: Log) -> None:
    """Do the work as a forked process that ends with its parent, and never returns."""
    status = _FAILED
    try:
        # Whoever kills the daemon means all of it (prctl(2): when the thread ends that forked).
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            status = work()
    except BaseException as error:  # nothing of the first process may run on in this one
        log.error(f"a process for CNI calls fails: {error!r}")
    finally:
        os._exit(status)
