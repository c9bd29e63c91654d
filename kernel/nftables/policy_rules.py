"""What network policies let through on a node, as a value; `policy` makes a table of it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

from kernel.model import IPAddress

PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
_AFTER_LAST = 1 << 128
Direction = Literal["ingress", "egress"]
Place = str | IPAddress
"""What a pod is found by: the node's end of its pair, or the address of a bridge's pod."""
DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


class Span(NamedTuple):
    """Ports of a protocol, by its number, from the first to the last."""

    protocol: int
    first: int
    last: int


class Ends(NamedTuple):
    """Addresses of an IP version, as numbers, from the first to the last."""

    version: int
    first: int
    last: int


class Box(NamedTuple):
    """Ports at addresses."""

    ends: Ends
    span: Span

    @property
    def version(self) -> int:
        """The IP version."""
        return self.ends.version


@dataclass(frozen=True)
class Filter:
    """What a pod may receive from (ingress), or send to (egress): what is listed, nothing else.

    hosts, ranges: addresses with all their ports and protocols. spans: ports of any address.
    boxes: ports of some. Ranges are disjoint, and so are spans and boxes. everything: no limit.
    monitors: what is not listed is counted and logged, and let through.
    """

    direction: Direction
    hosts: frozenset[IPAddress] = frozenset()
    ranges: frozenset[Ends] = frozenset()
    spans: frozenset[Span] = frozenset()
    boxes: frozenset[Box] = frozenset()
    everything: bool = False
    monitors: bool = False

    def allows(self, peer: IPAddress, protocol: int, port: int) -> bool:
        """Whether a connection is let through. port: of its destination; 0 where there is none."""
        return self.monitors or self.lists(peer, protocol, port)

    def lists(self, peer: IPAddress, protocol: int, port: int) -> bool:
        """Whether it is among what is listed."""
        if self.everything or peer in self.hosts or _find(self._ranges, peer):
            return True
        at, spans = self._boxes
        ends = _find(at, peer)
        own = spans[ends] if ends else ()
        return any(_has(span, protocol, port) for span in (*self.spans, *own))

    # A change asks for it several times; a filter may have thousands of members.
    @cached_property
    def versions(self) -> Mapping[str, Collection[int]]:
        """The IP versions that each part has addresses of; 0 where it has any address."""
        return {
            "hosts": {host.version for host in self.hosts},
            "ranges": {ends.version for ends in self.ranges},
            "boxes": {box.version for box in self.boxes},
            "spans": {0} if self.spans else (),
        }

    # A change may ask about thousands of connections, each of thousands of ranges.
    @cached_property
    def _ranges(self) -> list[Ends]:
        return sorted(self.ranges)

    @cached_property
    def _boxes(self) -> tuple[list[Ends], Mapping[Ends, list[Span]]]:
        """The addresses of boxes in order, and their ports."""
        spans: dict[Ends, list[Span]] = defaultdict(list)
        for ends, span in self.boxes:
            spans[ends].append(span)
        return sorted(spans), spans


def _find(ranges: Sequence[Ends], peer: IPAddress) -> Ends | None:
    """The one of the ranges, which are in order and disjoint, that has an address."""
    at = bisect_right(ranges, Ends(peer.version, int(peer), _AFTER_LAST)) - 1
    return ranges[at] if at >= 0 and _covers(ranges[at], peer) else None


def _covers(ends: Ends, peer: IPAddress) -> bool:
    return ends.version == peer.version and ends.first <= int(peer) <= ends.last


def _has(span: Span, protocol: int, port: int) -> bool:
    return span.protocol == protocol and span.first <= port <= span.last


@dataclass(frozen=True, slots=True)
class PolicyRules:
    """All of the table. known: pods that are decided on.

    ingress, egress: those that a filter limits, with its name. filters: by name. bridges: those of
    which all ports are pods of podwire. closes: whether what is not known lets nothing through.
    """

    known: frozenset[Place] = frozenset()
    ingress: Mapping[Place, str] = field(default_factory=dict)
    egress: Mapping[Place, str] = field(default_factory=dict)
    filters: Mapping[str, Filter] = field(default_factory=dict)
    bridges: frozenset[str] = frozenset()
    closes: bool = False

    def filter_of(self, direction: Direction, place: Place) -> Filter | None:
        """The filter of a pod in a direction; None where it is not limited."""
        name = self.names(direction).get(place)
        return self.filters[name] if name else None

    def names(self, direction: Direction) -> Mapping[Place, str]:
        """The filters of pods in a direction, by their names."""
        return self.ingress if direction == "ingress" else self.egress

    @property
    def limited(self) -> frozenset[Place]:
        """The pods that any filter limits."""
        return frozenset({*self.ingress, *self.egress})


def narrowed(old: PolicyRules, new: PolicyRules) -> frozenset[Place]:
    """The pods that may have connections now that are forbidden.

    Their filter forbids more than before, or they are led to another one: a packet that was on its
    way may have found that with the rules of the generation before, which are none (nft_do_chain
    reads the generation once, nft_lookup_eval at each look-up).
    """
    return frozenset(
        place
        for direction in DIRECTIONS
        for place, name in new.names(direction).items()
        if name != old.names(direction).get(place)
        or not _includes(new.filters[name], old.filters[name])
    )


def _includes(new: Filter, old: Filter) -> bool:
    """Whether it lets all through that the other one does, as far as their members show it."""
    if new == old or new.everything or new.monitors:
        return True
    if old.everything or old.monitors:
        return False
    pairs = (
        (new.hosts, old.hosts),
        (new.ranges, old.ranges),
        (new.spans, old.spans),
        (new.boxes, old.boxes),
    )
    return all(after >= before for after, before in pairs)


def ends_of(address: IPAddress) -> Ends:
    """One address, from it to itself."""
    return Ends(address.version, int(address), int(address))
