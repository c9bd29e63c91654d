"""Deletion of many links at the price of one.

Unregistering a device waits for an RCU grace period, 16 to 20 ms; devices that are unregistered
together wait together (net/core/dev.c, unregister_netdevice_many).  So deletions that arrive while
one is under way are gathered, and go as one link group with the next message. Processes share the
group: what one has marked another's message may take along, and finding nothing left is as good.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence

from kernel import rtnl
from kernel.errors import KernelError
from kernel.netlink import Netlink

_GONE = frozenset({errno.ENODEV})
# Group 0 is every link's; this one is nobody's (linux/netdevice.h: any 32-bit number).
_GROUP = 0x70776972
_GATHER = 0.010
"""Seconds; half of what a batch takes, and less than one batch more would."""


class LinkRemover:
    """Deletes links for many threads; each call returns when its link is gone.

    crowded: whether more deletions may be about to come, so that even the first one waits for them.
    """

    def __init__(self, crowded: Callable[[], bool] = lambda: False) -> None:
        self._crowded = crowded
        self._mutex = threading.Lock()
        self._waiting: list[_Deletion] = []
        self._busy = False

    def remove(self, name: str) -> bool:
        """Delete a link by name; whether it was there. Raises KernelError."""
        mine = _Deletion(name)
        with self._mutex:
            self._waiting.append(mine)
            leads, self._busy = not self._busy, True
        # Woken when it is done, or to be the next that does it for all: nobody wakes in vain.
        if leads or mine.wait_for_turn():
            if not leads or self._crowded():
                # Deletions come in numbers: those whose calls are being read belong to this batch.
                time.sleep(_GATHER)
            self._run()
        if mine.error is not None:
            raise mine.error
        return mine.found

    def _run(self) -> None:
        with self._mutex:
            batch, self._waiting = self._waiting, []
        try:
            with Netlink() as nl:
                _delete(nl, batch)
        except BaseException as error:
            # Whatever it is: nobody may take a link for gone that is there.
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


class _Deletion:
    """One caller's wish, and what came of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.found = False
        self.error: BaseException | None = None
        self._leads = False
        self._bell = threading.Lock()
        self._bell.acquire()

    def wait_for_turn(self) -> bool:
        """Sleep until it is done; True where it is this caller's to do it."""
        self._bell.acquire()
        return self._leads

    def call(self, *, leads: bool) -> None:
        """End the sleep, if there is one."""
        self._leads = leads
        self._bell.release()


def _delete(nl: Netlink, batch: Sequence[_Deletion]) -> None:
    marks = [rtnl.set_group(deletion.name, _GROUP) for deletion in batch]
    for deletion, mark, answer in zip(batch, marks, nl.exchange(marks), strict=True):
        deletion.found = answer.errno == 0
        if answer.errno not in (0, *_GONE):
            deletion.error = KernelError(str(mark), "", answer.errno, answer.hint)
    if any(deletion.found for deletion in batch):
        nl.run([rtnl.delete_group(_GROUP)], tolerate=_GONE)
