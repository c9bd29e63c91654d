"""What is probed, when, and how often: targets, the queue of peers that are due, token buckets."""

from __future__ import annotations

import heapq
import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Generic, NamedTuple, Protocol, TypeVar

from daemon.model import Desired, Node
from daemon.probes.protocol import Path
from kernel.model import Entry, FdbEntry, IPAddress, Route

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_SHARE = 2
"""While both are due, one of so many peers is a regular one."""


class Target(NamedTuple):
    """An address of a node, as sockets have it, and the path that leads there."""

    path: Path
    address: str


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a peer.

    mains: must answer: the peer's address in the pod network of each family, or its own addresses
    where podwire has no route to its pods. below: the addresses that carry these packets.
    tunnelled: whether they are encapsulated.
    """

    mains: tuple[Target, ...] = ()
    below: tuple[Target, ...] = ()
    tunnelled: bool = False

    def __iter__(self) -> Iterator[Target]:
        yield from self.mains
        yield from self.below


def targets_of(node: Node, entries: tuple[Entry, ...]) -> Targets:
    """The targets of a peer, from the desired entries that lead to its pods."""
    device, carriers = "", dict[IPAddress, None]()
    pods: dict[int, Target] = {}
    for entry in entries:
        if isinstance(entry, Route):
            pods.setdefault(entry.dst.version, _pod_target(entry.dst.network_address))
            if entry.via is not None and entry.link != device:
                carriers[entry.via] = None
        elif isinstance(entry, FdbEntry):
            device = entry.link
            carriers[entry.dst] = None
    if not pods:
        return Targets(tuple(map(_node_target, node.addresses)))
    return Targets(tuple(pods.values()), tuple(map(_node_target, carriers)), bool(device))


def own_targets(desired: Desired) -> tuple[Target, ...]:
    """The addresses that this node probes from; the first of each path is the source of probes."""
    pods = [address.address.ip for address in desired.device_addresses]
    pods += [e.dst.network_address for e in desired.own_routes if isinstance(e, Route)]
    return (*map(_pod_target, pods), *map(_node_target, desired.me.addresses))


def _pod_target(address: IPAddress) -> Target:
    return Target(Path.POD4 if address.version == 4 else Path.POD6, _text(address))


def _node_target(address: IPAddress) -> Target:
    return Target(Path.UNDERLAY4 if address.version == 4 else Path.UNDERLAY6, _text(address))


def _text(address: IPAddress) -> str:
    # Not str(), which writes some IPv6 addresses otherwise (RFC 5952 section 5).
    return socket.inet_ntop(_FAMILIES[address.version], address.packed)


class Scheduled(Protocol):
    """A member of the queue. ticket: of its place there, 0 without one; gone: not due any more."""

    ticket: int
    gone: bool


_T = TypeVar("_T", bound=Scheduled)


class Queue(Generic[_T]):
    """Peers by the time when they are due, without a timer for each.

    Established peers are regular: one after the other. All others are urgent: by their time, and
    before regular ones, but never more than their share. First of them are those whose verdict is
    pending: of many that fail at once some have failed soon, not all of them at the end.
    """

    def __init__(self) -> None:
        self._first: list[tuple[float, int, _T]] = []
        self._urgent: list[tuple[float, int, _T]] = []
        # Ordered by time, except where the interval shrank with the number of peers.
        self._regular: deque[tuple[float, int, _T]] = deque()
        self._tickets = count(1)
        self._turn = 0

    def add_urgent(self, peer: _T, due: float) -> None:
        """Schedule a peer, which loses the place that it has."""
        self._push(self._urgent, peer, due)

    def add_first(self, peer: _T, due: float) -> None:
        """The same, before all others of them."""
        self._push(self._first, peer, due)

    def _push(self, heap: list[tuple[float, int, _T]], peer: _T, due: float) -> None:
        peer.ticket = next(self._tickets)
        heapq.heappush(heap, (due, peer.ticket, peer))

    def add_regular(self, peer: _T, due: float) -> None:
        """Schedule an established peer after all others of them."""
        peer.ticket = next(self._tickets)
        self._regular.append((due, peer.ticket, peer))

    def pop(self, now: float) -> _T | None:
        """The next peer that is due, which loses its place; None where none is."""
        self._drop_stale()
        heap = self._first if self._first and self._first[0][0] <= now else self._urgent
        urgent = bool(heap) and heap[0][0] <= now
        regular = bool(self._regular) and self._regular[0][0] <= now
        if not urgent and not regular:
            return None
        if urgent and regular:
            self._turn = (self._turn + 1) % _SHARE
            urgent = self._turn > 0
        peer = heapq.heappop(heap)[2] if urgent else self._regular.popleft()[2]
        peer.ticket = 0
        return peer

    def next_due(self) -> float | None:
        """When the next peer is due."""
        self._drop_stale()
        queues = self._first, self._urgent, self._regular
        return min((queue[0][0] for queue in queues if queue), default=None)

    def _drop_stale(self) -> None:
        for heap in (self._first, self._urgent):
            while heap and _is_stale(heap[0]):
                heapq.heappop(heap)
        while self._regular and _is_stale(self._regular[0]):
            self._regular.popleft()


def _is_stale(place: tuple[float, int, Scheduled]) -> bool:
    _due, ticket, peer = place
    return peer.gone or peer.ticket != ticket


class TokenBucket:
    """Gains `rate` tokens a second, holds `size` at most, and starts full or empty.

    One that starts empty never exceeds its rate, counted from its start. All times are of one
    clock, in seconds.
    """

    def __init__(self, rate: float, size: float, *, full: bool = True) -> None:
        self.rate, self.size = rate, size
        self._tokens = size if full else 0.0
        self._filled_at: float | None = None  # the clock starts with the first question

    def has(self, now: float) -> bool:
        """Whether there is a token."""
        if self._filled_at is not None:
            gained = max(0.0, now - self._filled_at) * self.rate
            self._tokens = min(self.size, self._tokens + gained)
        self._filled_at = now
        return self._tokens >= 1

    def take(self, count: int = 1) -> None:
        """Take tokens. More than there are delays those that follow."""
        self._tokens -= count

    def wait(self, now: float, batch: float = 1.0) -> float:
        """0 while there is a token, else the seconds until there is a batch of them."""
        if self.has(now):
            return 0.0
        return (min(self.size, max(1.0, batch)) - self._tokens) / self.rate
