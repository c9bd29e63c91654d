"""Deletion of links, for many threads.

A device that is unregistered is gone for everybody as soon as the lock of all network settings is
free again: its name, its addresses and routes, the other end of a pair. The sender of the message
is kept for another 16 to 20 ms, by an RCU barrier before the device's memory is freed
(net/core/dev.c, netdev_run_todo). So a thread of its own sends the message, and the caller polls
for the link: the kernel answers that once it has the lock.

Deletions that cannot be sent yet are gathered and go as one link group.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from kernel.errors import KernelError
from kernel.netlink import links
from kernel.netlink.socket import Netlink, open_netlink

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

    def remove(self, names: Sequence[str]) -> bool:
        """Delete links by name; whether the first was there. Raises KernelError."""
        mine = _Deletion(names)
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
        with ExitStack() as permit:
            permit.callback(self._permits.release)
            with open_netlink() as nl:
                found = _mark(nl, batch)
                if not found:
                    return
                begun = threading.Event()
                sending = self._senders.submit(_delete_group, begun)
                held = permit.pop_all()
                sending.add_done_callback(lambda _done: held.close())
                begun.wait()
                # Who took the link that was marked last took all.
                while nl.run([links.get_link(found[-1])], tolerate=links.GONE)[0].objects:
                    if sending.done():
                        sending.result()
                        return
                    time.sleep(_PAUSE)


class _Deletion:
    """One caller's request, and its outcome."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
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


def _mark(nl: Netlink, batch: Sequence[_Deletion]) -> list[str]:
    """Put all into the group; the names of the links that are there, in the order of marking."""
    asked = [(deletion, name) for deletion in batch for name in deletion.names]
    marks = [links.set_group(name, links.GROUP) for _deletion, name in asked]
    found: list[str] = []
    for (deletion, name), mark, answer in zip(asked, marks, nl.exchange(marks), strict=True):
        if answer.errno == 0:
            found.append(name)
            deletion.found = deletion.found or name == deletion.names[0]
        elif answer.errno not in links.GONE:
            deletion.error = KernelError(str(mark), "", answer.errno, answer.hint)
    return found


def _delete_group(begun: threading.Event) -> None:
    begun.set()
    with Netlink() as nl:
        nl.run([links.delete_group(links.GROUP)], tolerate=links.GONE)
