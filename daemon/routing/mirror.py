"""What leads to other nodes, as it should be and as the kernel has it: one dictionary each.

Events keep the second one current, so only what was touched is ever compared.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass

from daemon.routing.wording import tell_change
from kernel.diff import Key, key_of
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route
from kernel.netlink.codec import NLM_F_REPLACE
from kernel.netlink.monitor import Event


@dataclass(frozen=True, slots=True)
class Repair:
    """One difference. have, want: None where there is, or should be, nothing.

    node: the peer that it leads to, or led to; empty where nobody knows.
    cause: who made it, for what others changed; empty where the plan did.
    """

    key: Key
    node: str
    have: Entry | None
    want: Entry | None
    cause: str


class Mirror:
    """Wanted and present entries. device: the VXLAN device, whose entries are all podwire's."""

    def __init__(self, device: str) -> None:
        self.want: dict[Key, Entry] = {}
        self.have: dict[Key, Entry] = {}
        self._device = device
        self._peers: dict[str, tuple[Entry, ...]] = {}
        self._owners: dict[Key, str] = {}
        self._former: dict[Key, str] = {}
        self._dirty: dict[Key, str] = {}

    @property
    def dirty(self) -> int:
        """How many entries may not be as they should."""
        return len(self._dirty)

    def is_dirty(self, key: Key) -> bool:
        """Whether an entry may not be as it should."""
        return key in self._dirty

    def out_of_sync(self) -> int:
        """How many wanted entries the kernel does not have so."""
        return sum(k in self.want and self.have.get(k) != self.want[k] for k in self._dirty)

    def aim(self, peers: Mapping[str, tuple[Entry, ...]]) -> None:
        """Take a new plan; peers whose tuple is the same object as before are passed over."""
        old = self._peers
        gone = [n for n in old if n not in peers]
        changed = [n for n, entries in peers.items() if old.get(n) is not entries]
        for name in (*gone, *changed):
            for entry in old.get(name, ()):
                key = key_of(entry)
                if self._owners.get(key) == name:
                    self._former[key] = self._owners.pop(key)
                    del self.want[key]
                    self._dirty[key] = ""
        for name in changed:
            for entry in peers[name]:
                key = key_of(entry)
                self.want[key], self._owners[key] = entry, name
                self._dirty[key] = ""
        self._peers = dict(peers)

    def reset(self, have: dict[Key, Entry], cause: str) -> None:
        """Take what was read from the kernel. cause: for what is found different."""
        self.have = have
        self._dirty = {
            key: self._dirty.get(key, cause)
            for key in {**self.want, **have}
            if self.want.get(key) != have.get(key)
        }

    def note(self, event: Event) -> bool:
        """Take an event in; whether it was about an entry that is podwire's."""
        entry = event.noun
        if not isinstance(entry, Route | Neighbour | FdbEntry) or not self._is_ours(event, entry):
            return False
        key = key_of(entry)
        before = self.have.get(key)
        if event.deleted:
            self.have.pop(key, None)
            change = "removed"
        else:
            self.have[key] = entry
            change = "changed" if before else "added"
        if before != self.have.get(key):
            self._dirty[key] = tell_change(change, event)
        return True

    def is_merged(self, event: Event) -> bool:
        """Whether another's next hop may have been put into one of our routes.

        IPv6 makes one route of two with the same destination and metric (net/ipv6/ip6_fib.c,
        fib6_add_rt2node), and tells of it under the name of the newcomer.
        """
        route = event.noun
        return (
            isinstance(route, Route)
            and not route.link
            and not event.deleted
            and route.dst.version == 6
            and key_of(route) in self.want
        )

    def _is_ours(self, event: Event, entry: Entry) -> bool:
        if not isinstance(entry, Route):
            return entry.link == self._device
        there = self.have.get(key_of(entry))
        if event.deleted:
            # Late news of a route that was replaced meanwhile, or of a link that was made anew, is
            # not about what is there.
            return isinstance(there, Route) and (there.protocol, there.link) == (
                entry.protocol,
                entry.link,
            )
        # Another's route is our business only where it took the place of ours.
        replaced = there is not None and bool(event.flags & NLM_F_REPLACE)
        return entry.protocol == RTPROT_PODWIRE_PEERS or replaced

    def repairs(self, wait_for: Callable[[Key], float]) -> tuple[list[Repair], float | None]:
        """What is to be done now, and in how many seconds more is (None: nothing waits)."""
        found: list[Repair] = []
        soonest: float | None = None
        for key, cause in list(self._dirty.items()):
            want, have = self.want.get(key), self.have.get(key)
            if want == have:
                del self._dirty[key]
                continue
            wait = wait_for(key)
            if wait > 0:
                soonest = wait if soonest is None else min(soonest, wait)
            else:
                node = self._owners.get(key) or self._former.get(key, "")
                found.append(Repair(key, node, have, want, cause))
        return found, soonest

    def settle(self, repairs: Iterable[Repair], failed: Container[Key]) -> None:
        """Note what was done; what failed stays to be done."""
        for repair in repairs:
            if repair.key in failed:
                continue
            if repair.want is None:
                self.have.pop(repair.key, None)
                self._former.pop(repair.key, None)
            else:
                self.have[repair.key] = repair.want
            self._dirty.pop(repair.key, None)
