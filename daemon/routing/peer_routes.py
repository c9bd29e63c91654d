"""Routes, neighbours and FDB entries of all peers, kept as desired.

Events keep the observed entries current, so that only what a plan or an event touched is compared.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from daemon.journal import Action, Record
from daemon.model import Desired
from daemon.routing.authors import describe_event
from daemon.routing.counters import Drift
from daemon.routing.reporter import Reporter
from kernel.describe import name_of, state_of
from kernel.diff import Change, Key, compare, key_of
from kernel.errors import KernelError
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route
from kernel.netlink.codec import NLM_F_REPLACE
from kernel.netlink.monitor import Event
from kernel.netlink.socket import Netlink
from kernel.routes import Failure, change_entries, find_rival, read_entries

RETRY = 1.0
"""Seconds after which what failed is tried again."""
_SOON = 0.25
_LINK_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EINVAL})
_EACH = 64
"""Repairs at once that have a record each; of more than these there is one for each node."""


@dataclass(frozen=True, slots=True)
class EntryChange:
    """One difference. node: the peer that the entry leads to, or led to; empty where unknown.

    cause: who made the difference, for what others changed; empty where the plan did.
    """

    key: Key
    change: Change[Entry]
    node: str
    cause: str

    @property
    def name(self) -> str:
        """What the journal calls the entry."""
        return name_of(self.change.noun)


class PeerEntries:
    """Desired and observed entries. device: the VXLAN device, whose entries are all podwire's."""

    def __init__(self, device: str) -> None:
        self.desired: dict[Key, Entry] = {}
        self.observed: dict[Key, Entry] = {}
        self._device = device
        self._peers: dict[str, tuple[Entry, ...]] = {}
        self._owners: dict[Key, str] = {}
        self._former: dict[Key, str] = {}
        self._touched: dict[Key, str] = {}
        self._links: frozenset[str] | None = None

    @property
    def links(self) -> frozenset[str]:
        """The links that desired routes leave by."""
        if self._links is None:
            routes = (e for e in self.desired.values() if isinstance(e, Route))
            self._links = frozenset(route.link for route in routes)
        return self._links

    @property
    def has_touched(self) -> bool:
        """Whether any entry may not be as desired."""
        return bool(self._touched)

    def is_touched(self, key: Key) -> bool:
        """Whether an entry may not be as desired."""
        return key in self._touched

    def out_of_sync(self) -> int:
        """How many desired entries the kernel does not have so."""
        desired, observed = self.desired, self.observed
        return sum(k in desired and observed.get(k) != desired[k] for k in self._touched)

    def update(self, peers: Mapping[str, tuple[Entry, ...]]) -> None:
        """Take the entries of a plan; equal tuples, of which most are the same, are passed over."""
        old = self._peers
        gone = [n for n in old if n not in peers]
        changed = [n for n, entries in peers.items() if old.get(n) != entries]
        if gone or changed:
            self._links = None
        for name in (*gone, *changed):
            for entry in old.get(name, ()):
                key = key_of(entry)
                if self._owners.get(key) == name:
                    self._former[key] = self._owners.pop(key)
                    del self.desired[key]
                    self._touched[key] = ""
        for name in changed:
            for entry in peers[name]:
                key = key_of(entry)
                self.desired[key], self._owners[key] = entry, name
                self._touched[key] = ""
        self._peers = dict(peers)

    def reset(self, observed: dict[Key, Entry], cause: str) -> None:
        """Take what was read from the kernel. cause: of what is found different."""
        self.observed = observed
        self._touched = {
            key: self._touched.get(key, cause)
            for key in {**self.desired, **observed}
            if self.desired.get(key) != observed.get(key)
        }

    def receive(self, event: Event) -> None:
        """Take an event in."""
        entry = event.noun
        if not isinstance(entry, Route | Neighbour | FdbEntry) or not self._is_ours(event, entry):
            return
        key = key_of(entry)
        before = self.observed.get(key)
        if event.deleted:
            self.observed.pop(key, None)
            how = "removed"
        else:
            self.observed[key] = entry
            how = "changed" if before else "added"
        if before != self.observed.get(key):
            self._touched[key] = describe_event(how, event)

    def is_merged(self, event: Event) -> bool:
        """Whether another's next hop may have been put into one of our routes.

        IPv6 makes one route of two with the same destination and metric (net/ipv6/ip6_fib.c,
        fib6_add_rt2node), and announces it under the name of the newcomer.
        """
        route = event.noun
        return (
            isinstance(route, Route)
            and not route.link
            and not event.deleted
            and route.dst.version == 6
            and key_of(route) in self.desired
        )

    def _is_ours(self, event: Event, entry: Entry) -> bool:
        if not isinstance(entry, Route):
            return entry.link == self._device
        present = self.observed.get(key_of(entry))
        if event.deleted:
            # A late event of a route that was replaced meanwhile, or of a link that was created
            # again, is not about the route that is present.
            return isinstance(present, Route) and (present.protocol, present.link) == (
                entry.protocol,
                entry.link,
            )
        # Another's route matters only where it took the place of ours.
        replaced = present is not None and bool(event.flags & NLM_F_REPLACE)
        return entry.protocol == RTPROT_PODWIRE_PEERS or replaced

    def diff(self, wait_for: Callable[[Key], float]) -> tuple[list[EntryChange], float | None]:
        """What is to be changed now, and in how many seconds more is (None: nothing waits)."""
        found: list[EntryChange] = []
        soonest: float | None = None
        for key, cause in list(self._touched.items()):
            change: Change[Entry] | None = compare(self.desired.get(key), self.observed.get(key))
            if change is None:
                del self._touched[key]
                continue
            wait = wait_for(key)
            if wait > 0:
                soonest = wait if soonest is None else min(soonest, wait)
            else:
                node = self._owners.get(key) or self._former.get(key, "")
                found.append(EntryChange(key, change, node, cause))
        return found, soonest

    def note_applied(self, changes: Iterable[EntryChange], failed: Container[Key]) -> None:
        """Take what was changed; what failed is to be changed again."""
        for found in changes:
            if found.key in failed:
                continue
            if found.change.desired is None:
                self.observed.pop(found.key, None)
                self._former.pop(found.key, None)
            else:
                self.observed[found.key] = found.change.desired
            self._touched.pop(found.key, None)


class PeerRoutes:
    """Reconciles the entries of all peers. device: the name of the VXLAN device."""

    def __init__(self, nl: Netlink, device: str, reporter: Reporter) -> None:
        self.entries = PeerEntries(device)
        self._nl, self._device, self._reporter = nl, device, reporter
        self._planned: Desired | None = None
        self._read_at: float | None = None
        self._cause = ""
        self._failed_until: dict[Key, float] = {}
        self._drift = Drift[Key](reporter.counts)

    def adopt(self) -> Iterable[Entry]:
        """Read what an earlier daemon left. Raises KernelError."""
        self.entries.reset(read_entries(self._nl, self._device), "")
        return self.entries.observed.values()

    def resync(self, cause: str) -> None:
        """Read all entries before the next comparison, for what the cause may have changed."""
        self._read_at, self._cause = 0.0, self._cause or cause
        self._failed_until.clear()

    def receive(self, event: Event) -> None:
        """Take an event in."""
        if self.entries.is_merged(event):
            self.resync(describe_event("changed", event))
        else:
            self.entries.receive(event)

    def plan(self, desired: Desired) -> None:
        """Note which entries a plan changes; the same object as before changes nothing."""
        if desired is not self._planned:
            if self._planned is None and desired.device is None:
                self.resync("")  # the entries on a device of earlier settings go with it
            self._planned = desired
            self.entries.update({**desired.peers, desired.me.name: desired.own_routes})

    def reconcile(self, desired: Desired, *, has_device: bool) -> float | None:
        """Change what differs; seconds until something that waits may be. Raises KernelError.

        has_device: whether the VXLAN device, with its entries, exists.
        """
        began = time.monotonic()
        self.plan(desired)
        self._read(began, has_device=has_device)
        changes, wait = self.entries.diff(lambda key: self._wait_for(key, began))
        self._drift.settle(self.entries.is_touched)
        if not changes:
            return wait
        self._note_drift(changes)
        failed = self._apply(changes)
        self.entries.note_applied(changes, failed)
        self._report([c for c in changes if c.key not in failed], began)
        self._report_failures(failed, {c.key: c.node for c in changes})
        return _SOON if wait is None and self.entries.has_touched else wait

    def _read(self, now: float, *, has_device: bool) -> None:
        if self._read_at is not None and now >= self._read_at:
            device = self._device if has_device else None
            self.entries.reset(read_entries(self._nl, device), self._cause)
            self._read_at, self._cause = None, ""

    def _note_drift(self, changes: Sequence[EntryChange]) -> None:
        for found in changes:
            if found.cause:
                self._drift.note(found.key, found.name)

    def _wait_for(self, key: Key, now: float) -> float:
        failed = self._failed_until.get(key)
        return max(self._reporter.pause_before(key), failed - now if failed else 0.0)

    def _apply(self, changes: Sequence[EntryChange]) -> Mapping[Key, Failure]:
        differences = [found.change for found in changes]
        add = [c.desired for c in differences if c.desired is not None]
        remove = [c.observed for c in differences if c.observed is not None and _is_ours(c)]
        return {key_of(f.entry): f for f in change_entries(self._nl, add, remove)}

    def _report(self, done: Sequence[EntryChange], began: float) -> None:
        for change in done:
            self._failed_until.pop(change.key, None)
        repairs = [c for c in done if c.cause]
        each = self._reporter.count_repairs((c.key, c.name, c.cause) for c in repairs)
        if fresh := [c for c in repairs if c.key in each]:
            self._reporter.log.warning(f"repaired {fresh[0].name}{_more(fresh)}: {fresh[0].cause}")
        self._reporter.record(records_of([c for c in done if not c.cause or c.key in each]))
        if repairs:
            self._reporter.note_batch(began)
        if len(repairs) < len(done):
            self._reporter.log.info("changed entries", count=len(done) - len(repairs))

    def _report_failures(self, failed: Mapping[Key, Failure], nodes: Mapping[Key, str]) -> None:
        if not failed:
            return
        # The kernel has other entries than those observed.
        self._read_at = time.monotonic() + RETRY
        self._failed_until |= dict.fromkeys(failed, self._read_at)
        real = [f for f in failed.values() if not _lost_link(f)]
        if not real:
            return
        first, node = real[0], nodes.get(key_of(real[0].entry), "")
        name = " of ".join(filter(None, (name_of(first.entry), node)))
        error = KernelError("set", name, first.errno, self._explain(first))
        self._reporter.report_failure(f"{error}{_more(real)}")
        self._reporter.faults.set("routes", f"{error}{_more(real)}")

    def _explain(self, failure: Failure) -> str:
        if failure.errno != errno.EEXIST or not isinstance(failure.entry, Route):
            return failure.hint
        rival = find_rival(self._nl, failure.entry)
        if rival is None:
            return failure.hint
        return f"another route is in its place, and is not podwire's to remove: {state_of(rival)}"


def _lost_link(failure: Failure) -> bool:
    """Whether the entry's link is gone, which is repaired and reported by itself."""
    if failure.errno not in _LINK_GONE:
        return False
    try:
        socket.if_nametoindex(failure.entry.link)
    except OSError:
        return True
    return failure.errno == errno.ENODEV  # created again meanwhile


def _more(things: Sequence[object]) -> str:
    return f" (and {len(things) - 1} more)" if len(things) > 1 else ""


def _is_ours(change: Change[Entry]) -> bool:
    """Whether the observed entry is podwire's, or in the place of one that is desired."""
    observed = change.observed
    foreign = isinstance(observed, Route) and observed.protocol != RTPROT_PODWIRE_PEERS
    return not foreign or change.desired is not None


def records_of(changes: Sequence[EntryChange]) -> list[Record]:
    """The journal's records: changes of the plan by node, repairs one by one unless many."""
    now = time.time()
    many = sum(bool(c.cause) for c in changes) > _EACH
    alone = [c for c in changes if not c.node or (c.cause and not many)]
    alone.sort(key=lambda c: not c.cause)
    together = [c for c in changes if c.node and (many or not c.cause)]
    more = []
    if len(alone) > _EACH:
        alone, rest = alone[:_EACH], alone[_EACH:]
        more = [Record(now, "removed", f"{len(rest)} more entries", "they lead to no node")]
    return [*(_record(c, now) for c in alone), *more, *_records_by_node(together, now)]


def _record(found: EntryChange, now: float) -> Record:
    states = state_of(found.change.observed), state_of(found.change.desired)
    cause = found.cause or (f"leads to {found.node}" if found.node else "leads to no node")
    return Record(now, _action([found]), found.name, cause, *states)


def _records_by_node(changes: Iterable[EntryChange], now: float) -> Iterator[Record]:
    def place(found: EntryChange) -> tuple[str, str]:
        return found.node, found.cause

    for (node, cause), group in groupby(sorted(changes, key=place), place):
        members = list(group)
        routes = [c for c in members if isinstance(c.change.noun, Route)]
        prefixes = [str(c.change.noun.dst) for c in routes if isinstance(c.change.noun, Route)]
        shown = [c.change for c in routes or members]
        before, after = _states(c.observed for c in shown), _states(c.desired for c in shown)
        name = " ".join([f"node {node}", *prefixes])
        yield Record(now, _action(members), name, cause or "the plan", before, after)


def _states(entries: Iterable[Entry | None]) -> str:
    return "; ".join(filter(None, map(state_of, entries)))


def _action(changes: Sequence[EntryChange]) -> Action:
    if all(c.change.desired is None for c in changes):
        return "removed"
    if changes[0].cause:
        return "restored"
    return "added" if all(c.change.observed is None for c in changes) else "changed"
