"""Routes, neighbours and FDB entries of all peers, kept as the plan wants them."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Mapping, Sequence

from daemon.routing.mirror import Mirror, Repair
from daemon.routing.records import records_of
from daemon.routing.reporter import Teller
from kernel.describe import name_of, state_of
from kernel.diff import Key, key_of
from kernel.errors import KernelError
from kernel.model import RTPROT_PODWIRE_PEERS, Route
from kernel.netlink.socket import Netlink
from kernel.routes import Failure, change_entries, find_rival, read_entries

RETRY = 1.0
"""Seconds after which what failed is tried again."""
_SOON = 0.25
_LINK_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EINVAL})


class Entries:
    """Acts on a mirror's differences."""

    def __init__(self, nl: Netlink, mirror: Mirror, teller: Teller) -> None:
        self._nl, self._mirror, self._teller = nl, mirror, teller
        self._read_at: float | None = None
        self._cause = ""
        self._failed_until: dict[Key, float] = {}
        self._found: set[Key] = set()

    def look(self, cause: str) -> None:
        """Compare all of them, for what the cause may have done."""
        self._read_at, self._cause = 0.0, self._cause or cause
        self._failed_until.clear()

    def mend(self, device: str | None) -> float | None:
        """Put right what differs; seconds until something that waits may be. Raises KernelError.

        device: whose entries count, None where there is none.
        """
        began = time.monotonic()
        if self._read_at is not None and began >= self._read_at:
            self._mirror.reset(read_entries(self._nl, device), self._cause)
            self._read_at, self._cause = None, ""
        repairs, wait = self._mirror.repairs(lambda key: self._wait_for(key, began))
        self._lapse()
        if not repairs:
            return wait
        self._find(repairs)
        failed = self._change(repairs)
        self._mirror.settle(repairs, failed)
        self._tell([r for r in repairs if r.key not in failed], began)
        self._note_failures(failed, {r.key: r.node for r in repairs})
        return _SOON if wait is None and self._mirror.dirty else wait

    def _find(self, repairs: Sequence[Repair]) -> None:
        for repair in repairs:
            if repair.cause:
                self._found.add(repair.key)
                self._teller.counts.find(repair.key, _name(repair))

    def _lapse(self) -> None:
        for key in [key for key in self._found if not self._mirror.is_dirty(key)]:
            self._found.remove(key)
            self._teller.counts.lapse(key)

    def _wait_for(self, key: Key, now: float) -> float:
        failed = self._failed_until.get(key)
        return max(self._teller.wait_for(key), failed - now if failed else 0.0)

    def _change(self, repairs: Sequence[Repair]) -> Mapping[Key, Failure]:
        add = [r.want for r in repairs if r.want is not None]
        remove = [r.have for r in repairs if r.have is not None and _is_ours(r)]
        return {key_of(f.entry): f for f in change_entries(self._nl, add, remove)}

    def _note_failures(self, failed: Mapping[Key, Failure], nodes: Mapping[Key, str]) -> None:
        if not failed:
            return
        # The kernel has other things than we believe.
        self._read_at = time.monotonic() + RETRY
        self._failed_until |= dict.fromkeys(failed, self._read_at)
        real = [f for f in failed.values() if not _went(f)]
        if not real:
            return
        first, node = real[0], nodes.get(key_of(real[0].entry), "")
        name = " of ".join(filter(None, (name_of(first.entry), node)))
        error = KernelError("set", name, first.errno, self._explain(first))
        self._teller.fail(f"{error}{_more(real)}")

    def _explain(self, failure: Failure) -> str:
        if failure.errno != errno.EEXIST or not isinstance(failure.entry, Route):
            return failure.hint
        rival = find_rival(self._nl, failure.entry)
        if rival is None:
            return failure.hint
        return f"another route is in its place, and is not podwire's to remove: {state_of(rival)}"

    def _tell(self, done: Sequence[Repair], began: float) -> None:
        for repair in done:
            self._failed_until.pop(repair.key, None)
        found = [r for r in done if r.cause]
        told = self._teller.count((r.key, _name(r), r.cause) for r in found)
        self._teller.record(records_of([r for r in done if not r.cause or r.key in told]))
        if news := [r for r in found if r.key in told]:
            name, cause = _name(news[0]), news[0].cause
            self._teller.log.warning(f"put right {name}{_more(news)}: {cause}")
        if found:
            self._teller.rest(began)
        if len(found) < len(done):
            self._teller.log.info("changed entries", count=len(done) - len(found))


def _went(failure: Failure) -> bool:
    """Whether the entry's link is gone: which is put right, and tells of itself."""
    if failure.errno not in _LINK_GONE:
        return False
    try:
        socket.if_nametoindex(failure.entry.link)
    except OSError:
        return True
    return failure.errno == errno.ENODEV  # made anew meanwhile


def _name(repair: Repair) -> str:
    entry = repair.want or repair.have
    return name_of(entry) if entry else ""


def _more(things: Sequence[object]) -> str:
    return f" (and {len(things) - 1} more)" if len(things) > 1 else ""


def _is_ours(repair: Repair) -> bool:
    """Whether what is there is podwire's, or in the place of what is podwire's."""
    have = repair.have
    foreign = isinstance(have, Route) and have.protocol != RTPROT_PODWIRE_PEERS
    return not foreign or repair.want is not None
