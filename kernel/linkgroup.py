"""Deletion of many links at the price of one.

Unregistering a device waits for an RCU grace period, 16 to 20 ms; devices that are unregistered
together wait together (net/core/dev.c, unregister_netdevice_many).  So deletions that arrive while
one is under way are gathered, and go as one link group with the next message.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence

from kernel import rtnl
from kernel.errors import KernelError
from kernel.netlink import Netlink

_GONE = frozenset({errno.ENODEV})
# Group 0 is every link's; this one is nobody's (linux/netdevice.h: any 32-bit number).
_GROUP = 0x70776972


class LinkRemover:
    """Deletes links for many threads; each call returns when its link is gone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[_Deletion] = []
        self._busy = False

    def remove(self, name: str) -> bool:
        """Delete a link by name; whether it was there. Raises KernelError."""
        mine = _Deletion(name)
        with self._condition:
            self._waiting.append(mine)
            while self._busy and not mine.done:
                self._condition.wait()
            if not mine.done:
                self._busy = True
                batch, self._waiting = self._waiting, []
        if not mine.done:
            self._run(batch)
        if mine.error is not None:
            raise mine.error
        return mine.found

    def _run(self, batch: list[_Deletion]) -> None:
        try:
            with Netlink() as nl:
                _delete(nl, batch)
        except BaseException as error:
            # Whatever it is: nobody may take a link for gone that is there.
            for deletion in batch:
                deletion.error = deletion.error or error
        finally:
            with self._condition:
                for deletion in batch:
                    deletion.done = True
                self._busy = False
                self._condition.notify_all()


class _Deletion:
    """One caller's wish, and what came of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = self.found = False
        self.error: BaseException | None = None


def _delete(nl: Netlink, batch: Sequence[_Deletion]) -> None:
    if len(batch) == 1:
        batch[0].found = not nl.run([rtnl.delete_link(batch[0].name)], tolerate=_GONE)[0].errno
        return
    marks = [rtnl.set_group(deletion.name, _GROUP) for deletion in batch]
    for deletion, mark, answer in zip(batch, marks, nl.exchange(marks), strict=True):
        deletion.found = answer.errno == 0
        if answer.errno not in (0, *_GONE):
            deletion.error = KernelError(str(mark), "", answer.errno, answer.hint)
    if any(deletion.found for deletion in batch):
        nl.run([rtnl.delete_group(_GROUP)])
