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
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from kernel.errors import KernelError
from kernel.netlink import links
from kernel.netlink.socket import Netlink, open_netlink

_GONE = frozenset({errno.ENODEV})
# Group 0 is the default of every link; no other program uses this one (linux/netdevice.h).
_GROUP = 0x70776972
_AT_ONCE = 4
"""The number of messages that may be in flight."""
_PAUSE = 0.0005  # seconds between polls


class LinkRemover:
    """Deletes links for many threads; each call returns when its link is gone."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: list[_Deletion] = []
        self._busy = False
        self._permits = threading.Semaphore(_AT_ONCE)
        self._senders = ThreadPoolExecutor(_AT_ONCE, "remover")

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
        self._permits.acquire()
        with self._mutex:
            batch, self._waiting = self._waiting, []
        try:
            self._delete(batch)
        except BaseException as error:
            # Whatever it is: no caller may take a link for gone that is there.
            for deletion in batch:
                deletion.error = deletion.error or error
        finally:
            with self._mutex:
                following = self._waiting[0] if self._waiting else None
                self._busy = following is not None
            if following:
                following.call(leads=True)
            for deletion in batch:
                deletion.call(leads=False)

    def _delete(self, batch: Sequence[_Deletion]) -> None:
        """Delete the batch's links, and wait until they are gone; the permit ends later."""
        with open_netlink() as nl, ExitStack() as permit:
            permit.callback(self._permits.release)
            found = _mark(nl, batch)
            if not found:
                return
            begun = threading.Event()
            sending = self._senders.submit(_delete_group, begun)
            held = permit.pop_all()
            sending.add_done_callback(lambda _done: held.close())
            begun.wait()
            # Who took the link that was marked last took all.
            while nl.run([links.get_link(found[-1].name)], tolerate=_GONE)[0].objects:
                if sending.done():
                    sending.result()
                    return
                time.sleep(_PAUSE)


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


def _mark(nl: Netlink, batch: Sequence[_Deletion]) -> list[_Deletion]:
    """Put all into the group; those whose link is there, in the order of marking."""
    marks = [links.set_group(deletion.name, _GROUP) for deletion in batch]
    for deletion, mark, answer in zip(batch, marks, nl.exchange(marks), strict=True):
        deletion.found = answer.errno == 0
        if answer.errno not in (0, *_GONE):
            deletion.error = KernelError(str(mark), "", answer.errno, answer.hint)
    return [deletion for deletion in batch if deletion.found]


def _delete_group(begun: threading.Event) -> None:
    begun.set()
    with Netlink() as nl:
        nl.run([links.delete_group(_GROUP)], tolerate=_GONE)
