"""The threads of one process that serve calls, and which of them does so now.

One thread leads: it waits for a connection, and serves it itself. While calls come one after the
other no second thread is woken, which would cost more than the call. The lead passes on

- in a burst, for a few calls (`share`): while one sleeps in the kernel the next is read, and the
  last is answered and logged;
- when a call has to wait (`waiting`, `pass_on`);
- when a call is stuck (`relieve`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cni_plugin.errors import TRY_AGAIN, CniError
from cni_plugin.exec import kill_group
from daemon.log import Log
from kernel.netlink.socket import close_kept_sockets, keep_sockets_open

THREADS = 64
"""Calls of one process that may be in flight, most of them waiting for the kernel."""
BUSY_MAX = 3
"""Calls that one process takes at a time, beside those that wait. More would compete for the
interpreter's lock, and would be taken from the other process."""
IDLE_SECONDS = 2.0
"""Seconds after which an idle thread ends."""
WAITING_MAX = 24
"""Calls that may wait for one IPAM plugin."""
ALL_WAITING_MAX = 40
"""Calls that may wait for IPAM plugins in all; less than two thirds of THREADS: behind each there
may be another call for the same attachment."""


class _Worker:
    """One thread. bell: locked while it is idle; busy: it has a call that has not waited yet."""

    def __init__(self) -> None:
        self.bell = threading.Lock()
        self.bell.acquire()
        self.busy = False


class WorkerPool:
    """Starts threads as they are needed.

    work: waits for a connection, calls `taken`, serves it; False once there are no more to come.
    more: whether a connection waits.
    """

    def __init__(self, most: int = THREADS) -> None:
        self._most = most
        self._work: Callable[[], bool] = lambda: False
        self._more: Callable[[], bool] = lambda: False
        self._mutex = threading.Lock()
        self._mine = threading.local()
        self._threads: set[threading.Thread] = set()
        self._idle: list[_Worker] = []
        self._leader: _Worker | None = None
        self._accepts, self._taken, self._seen = True, 0, -1
        self._busy = 0
        self.closed = threading.Event()
        """Set once `work` has returned False."""

    def start(self, work: Callable[[], bool], more: Callable[[], bool]) -> None:
        """Start the first thread."""
        self._work, self._more = work, more
        with self._mutex:
            self._start_leader()

    def taken(self) -> None:
        """The calling thread, which leads, has a connection now."""
        self._accepts = False
        self._taken += 1
        self._set_busy(self._mine.worker, busy=True)

    def share(self) -> None:
        """Let another thread lead if connections wait, and few calls are served."""
        worker: _Worker = self._mine.worker
        if worker is self._leader and self._busy < BUSY_MAX and self._more():
            with self._mutex:
                self._replace(worker)

    def pass_on(self) -> None:
        """Let another thread lead, if the calling one does: its call has to wait."""
        worker: _Worker | None = getattr(self._mine, "worker", None)
        if worker is None:
            return
        self._set_busy(worker, busy=False)
        if worker is self._leader:
            with self._mutex:
                self._replace(worker)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The calling thread only waits for the duration."""
        self.pass_on()
        yield

    def relieve(self) -> bool:
        """Call it every now and then: a thread that serves the same call as last time leads no
        more. Whether calls are taken: one was since the last time, or could be."""
        with self._mutex:
            leader, calls_were_taken = self._leader, self._seen != self._taken
            if leader is None:
                self._find_leader()
            elif not self._accepts and not calls_were_taken:
                self._replace(leader)
            self._seen = self._taken
            return calls_were_taken or self._leader is not None

    def join(self, until: float) -> bool:
        """Wait for the end of all threads, until a time of the monotonic clock; whether it came."""
        while self._threads and time.monotonic() < until:
            with self._mutex:
                thread = next(iter(self._threads), None)
            if thread is not None:
                thread.join(max(0.0, until - time.monotonic()))
        return not self._threads

    def _set_busy(self, worker: _Worker, *, busy: bool) -> None:
        if worker.busy != busy:
            with self._mutex:
                self._busy += 1 if busy else -1
            worker.busy = busy

    def _run(self, worker: _Worker) -> None:
        self._mine.worker = worker
        keep_sockets_open()
        try:
            while self._leads(worker):
                self._accepts = True
                if not self._work():
                    self._close()
                self._set_busy(worker, busy=False)
        finally:
            close_kept_sockets()
            with self._mutex:
                self._threads.discard(threading.current_thread())

    def _leads(self, worker: _Worker) -> bool:
        """Wait until the thread leads; False where it is to end."""
        if worker is self._leader:  # still, as its call never waited
            return not self.closed.is_set()
        with self._mutex:
            if self.closed.is_set():
                return False
            # All threads had to wait, or the leader serves a call and there is room for another.
            if self._leader is None or (not self._accepts and self._busy < BUSY_MAX):
                self._leader, self._accepts = worker, True
                return True
            self._idle.append(worker)
        if worker.bell.acquire(timeout=IDLE_SECONDS):
            return not self.closed.is_set()
        with self._mutex:
            if worker in self._idle:
                self._idle.remove(worker)
                return False
        return worker.bell.acquire() and not self.closed.is_set()  # called this very moment

    def _close(self) -> None:
        with self._mutex:
            self.closed.set()
            for worker in self._idle:
                worker.bell.release()
            self._idle.clear()

    def _replace(self, leader: _Worker) -> None:
        """Make another thread the leader."""
        if self._leader is leader:
            self._accepts = True
            self._find_leader()

    def _find_leader(self) -> None:
        """Take the last thread that became idle, as its stack is still warm, or start one."""
        if self._idle:
            self._leader = self._idle.pop()
            self._leader.bell.release()
        elif len(self._threads) < self._most and not self.closed.is_set():
            self._start_leader()
        else:
            self._leader = None

    def _start_leader(self) -> None:
        self._leader = worker = _Worker()
        thread = threading.Thread(target=self._run, args=(worker,), name="worker", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # the node is out of threads or memory: `relieve` tries again
            self._threads.discard(thread)
            self._leader = None


class Delegations:
    """Calls that wait for another IPAM plugin, and the process groups of the plugins that run.

    A plugin that hangs holds the thread of each call that waits for it. Those are bounded, in all
    and for each plugin, so that the calls of other networks find a thread.
    """

    def __init__(
        self, log: Log, most: int = WAITING_MAX, most_in_all: int = ALL_WAITING_MAX
    ) -> None:
        self._log = log
        self._most, self._most_in_all = most, most_in_all
        self._mutex = threading.Lock()
        self._waiting = Counter[str]()
        self._reported: set[str] = set()
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
        """Let `stop` end a process group for the duration, while its number is no other's."""
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
        """End the plugins that run, and those that start from now on."""
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
            reported = name in self._reported
            self._reported.add(name)
        text = f"{total} calls wait for IPAM plugins already, {count} of them for {name}"
        if not reported:
            self._log.warning(f"{text}: further ones are refused until it answers")
        raise CniError(TRY_AGAIN, f"{text}; try again", "does it hang? podwired's log says more")

    def _leave(self, name: str) -> None:
        with self._mutex:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]
                self._reported.discard(name)
