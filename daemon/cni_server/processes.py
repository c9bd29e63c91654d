"""Processes that serve CNI calls beside the daemon's first one.

One interpreter lets one thread compute at a time, and a burst of calls could use more processors.
They are forked before the first thread starts, for a fork takes one thread along and the locks of
all; and before the first process loads what it alone needs, of which each would keep a copy. So
they wait until the first process has read what they are to serve.
One that dies is not replaced: the others go on, and the log reports it.

They end when the listening socket is shut down, which is the first process's business: the signals
that end a daemon mean nothing to them.
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
from daemon.signals import NUMBERS
from kernel.nftables.generation import share_with_forked

PROCESSES = 2
"""Where the node has as many processors."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PAUSE_SECONDS = 0.01
_FAILED = 1


def process_count() -> int:
    """How many processes serve calls on this node, the first one among them."""
    return min(PROCESSES, len(os.sched_getaffinity(0)))


class Processes:
    """The forked processes, as the first one sees them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._numbers: dict[int, int] = {}  # by process ID
        self._pipes: list[int] = []  # to those that wait
        self.died = 0
        """How many ended before they should, as far as `find_dead` saw it."""

    def fork(self, count: int, work: Callable[[int, bytes], int]) -> None:
        """Start processes: each does `work(number, order)`, and exits with its status.

        number: from 1 on. order: what `begin` gives it.
        """
        parent = os.getpid()
        share_with_forked()
        for number in range(1, count + 1):
            reading, writing = os.pipe()
            self._pipes.append(writing)
            pid = os.fork()
            if pid == 0:
                for pipe in self._pipes:
                    os.close(pipe)
                _be_helper(parent, partial(_await_order, reading, partial(work, number)), self._log)
            os.close(reading)
            self._numbers[pid] = number

    def begin(self, order: bytes) -> None:
        """Let them begin; without an order those that wait end."""
        while self._pipes:
            with os.fdopen(self._pipes.pop(), "wb", 0) as pipe, suppress(BrokenPipeError):
                pipe.write(order)

    def find_dead(self) -> list[int]:
        """The numbers of those that died since the last time; the log says how."""
        dead = self._reap()
        for pid, (_number, status) in dead.items():
            end = describe_end(os.waitstatus_to_exitcode(status))
            why = "the other one serves its share of CNI calls until podwired is restarted"
            self._log.error(f"the process {pid} for CNI calls ended ({end}): {why}")
        self.died += len(dead)
        return [number for number, _status in dead.values()]

    def wait(self, seconds: float) -> bool:
        """Wait for their end, and kill those that have not ended then; whether all ended well."""
        self.begin(b"")
        until, well = time.monotonic() + seconds, True
        while self._numbers and time.monotonic() < until:
            well = not any(status for _number, status in self._reap().values()) and well
            time.sleep(_PAUSE_SECONDS)
        for pid in self._numbers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            well = False
        self._numbers.clear()
        return well

    def _reap(self) -> dict[int, tuple[int, int]]:
        """Numbers and statuses of those that have ended, by process ID."""
        dead = {}
        for pid in tuple(self._numbers):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                dead[pid] = self._numbers.pop(pid), status
        return dead


def _await_order(pipe: int, work: Callable[[bytes], int]) -> int:
    """Do the work once there is an order for it."""
    with os.fdopen(pipe, "rb") as file:
        order = file.read()
    return work(order) if order else 0


def _be_helper(parent: int, work: Callable[[], int], log: Log) -> None:
    """Do the work as a forked process that ends with its parent. Never returns."""
    status = _FAILED
    try:
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
        # Killing the daemon means all of it (prctl(2): when the thread ends that forked).
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            status = work()
    except BaseException as error:  # nothing of the first process may run on in this one
        log.error(f"a process for CNI calls fails: {error!r}")
    finally:
        os._exit(status)
