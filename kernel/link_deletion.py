"""Deletion of links, for many threads.

A device that is unregistered is gone for everybody as soon as the lock of all network settings is
free again: its name, its addresses and routes, the other end of a pair. The sender of the message
is kept for another 16 to 20 ms, by an RCU barrier before the device's memory is freed
(net/core/dev.c, netdev_run_todo). So a thread of its own sends the message, and the caller polls
for the link: the kernel answers that once it has the lock.

Deletions that cannot be sent yet are gathered and go as one link group. Processes share the group:
what one has marked another's message may take along, and finding nothing left is as good.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue

from kernel.errors import KernelError
from kernel.netlink import links
from kernel.netlink.socket import Netlink

_GONE = frozenset({errno.ENODEV})
# Group 0 is the default of every link; no other program uses this one (linux/netdevice.h).
_GROUP = 0x70776972
_AT_ONCE = 4
"""The number of messages that may be in flight."""
_PAUSE = 0.0005  # seconds between polls
_IDLE = 2.0  # seconds after which an idle thread ends


class LinkRemover:
    """Deletes links for many threads; each call returns when its link is gone."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: list[_Deletion] = []
        self._busy = False
        self._senders = _Senders()

    def remove(self, name: str) -> bool:
        """Delete a link by name; whether it was there. Raises KernelError."""
        mine = _Deletion(name)
        with self._mutex:
            self._waiting.append(mine)
            leads, self._busy = not self._busy, True
        # Woken when it is done, or to be the next that does it for all.
        if leads or mine.wait():
            self._run()
        if mine.error is not None:
            raise mine.error
        return mine.found

    def _run(self) -> None:
        self._senders.acquire()
        with self._mutex:
            batch, self._waiting = self._waiting, []
        sending: _Sending | None = None
        try:
            with Netlink() as nl:
                found = _mark(nl, batch)
                if found:
                    sending = self._senders.send()
                    _await_end(nl, found[-1].name, sending)
        except BaseException as error:
            # Whatever it is: no caller may take a link for gone that is there.
            for deletion in batch:
                deletion.error = deletion.error or error
        finally:
            if sending is None:
                self._senders.release()
            with self._mutex:
                following = self._waiting[0] if self._waiting else None
                self._busy = following is not None
            if following:
                following.call(leads=True)
            for deletion in batch:
                deletion.call(leads=False)


class _Deletion:
    """One caller's request, and its outcome."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.found = False
        self.error: BaseException | None = None
        self._leads = False
        self._wakeup = threading.Lock()
        self._wakeup.acquire()

    def wait(self) -> bool:
        """Sleep until it is done; True where it is this caller's to do it."""
        self._wakeup.acquire()
        return self._leads

    def call(self, *, leads: bool) -> None:
        """End the sleep, if there is one."""
        self._leads = leads
        self._wakeup.release()


class _Sending:
    """One deletion of the group, in flight."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._begins, self._ends = threading.Lock(), threading.Lock()
        self._begins.acquire()
        self._ends.acquire()

    def run(self, nl: Netlink) -> None:
        """Send it, and wait for the kernel's end of it."""
        self._begins.release()
        try:
            nl.run([links.delete_group(_GROUP)], tolerate=_GONE)
        except BaseException as error:
            self.error = error
        finally:
            self._ends.release()

    def wait_until_begun(self) -> None:
        """Until it is sent, or about to be."""
        self._begins.acquire()

    def ends_within(self, seconds: float) -> bool:
        """Whether it is over by then; asked until it is. Raises what went wrong."""
        over = self._ends.acquire(timeout=seconds)
        if over and self.error is not None:
            raise self.error
        return over


class _Senders:
    """Threads in the namespace of those that need them first."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(_AT_ONCE)
        self._mutex = threading.Lock()
        self._idle = 0
        self._requests: SimpleQueue[_Sending] = SimpleQueue()

    def acquire(self) -> None:
        """Wait until another message may be in flight."""
        self._permits.acquire()

    def release(self) -> None:
        """Give back the permit that was not needed."""
        self._permits.release()

    def send(self) -> _Sending:
        """Delete the group; the permit ends with it. Raises KernelError, RuntimeError."""
        with self._mutex:
            if not self._idle:
                self._start()
                self._idle += 1
            self._idle -= 1
        sending = _Sending()
        self._requests.put(sending)
        return sending

    def _start(self) -> None:
        nl = Netlink()
        try:
            threading.Thread(target=self._work, args=(nl,), name="remover", daemon=True).start()
        except BaseException:
            nl.close()
            raise

    def _work(self, nl: Netlink) -> None:
        with nl:
            while sending := self._next():
                sending.run(nl)
                with self._mutex:
                    self._idle += 1
                self.release()

    def _next(self) -> _Sending | None:
        """What the calling thread is to send; None where it was idle for long."""
        while True:
            try:
                return self._requests.get(timeout=_IDLE)
            except Empty:
                with self._mutex:
                    if self._idle:  # else a message is about to come
                        self._idle -= 1
                        return None


def _mark(nl: Netlink, batch: Sequence[_Deletion]) -> list[_Deletion]:
    """Put all into the group; those whose link is there, in the order of marking."""
    marks = [links.set_group(deletion.name, _GROUP) for deletion in batch]
    for deletion, mark, answer in zip(batch, marks, nl.exchange(marks), strict=True):
        deletion.found = answer.errno == 0
        if answer.errno not in (0, *_GONE):
            deletion.error = KernelError(str(mark), "", answer.errno, answer.hint)
    return [deletion for deletion in batch if deletion.found]


def _await_end(nl: Netlink, name: str, sending: _Sending) -> None:
    """Wait until the group is gone. name: the link that was marked last; who took it took all."""
    sending.wait_until_begun()
    while nl.run([links.get_link(name)], tolerate=_GONE)[0].objects:
        if sending.ends_within(_PAUSE):
            return
