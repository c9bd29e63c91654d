"""The subnets that nodes may lease: all of one length in the cluster's ranges of one family. Pure.

Subnets are numbered through all ranges; what is taken is a list of intervals of those numbers. So
a range of any size costs what is taken in it, never its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from kernel.model import IPNetwork

Interval = tuple[int, int]
"""From a number up to another one, which is not in it."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Subnets of `length` bits in ranges of one family, which do not overlap.

    Made by `make_pool`.
    """

    ranges: tuple[IPNetwork, ...]
    length: int

    @property
    def version(self) -> int:
        """The address family: 4 or 6."""
        return self.ranges[0].version

    @property
    def size(self) -> int:
        """How many subnets there are."""
        return sum(self._slots(r) for r in self.ranges)

    def __contains__(self, subnet: IPNetwork) -> bool:
        """Whether it is one of these subnets."""
        return subnet.prefixlen == self.length and any(_within(subnet, r) for r in self.ranges)

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranges))

    def choose(self, taken: Iterable[IPNetwork], pick: Callable[[int], int]) -> IPNetwork | None:
        """A subnet that overlaps nothing taken; None where there is none.

        pick: chooses one of that many, by number from 0. Random choices of nodes that start at the
        same time rarely collide.
        """
        gaps = list(self._gaps(taken))
        free = sum(end - start for start, end in gaps)
        if not free:
            return None
        rest = pick(free)
        for start, end in gaps:
            if rest < end - start:
                return self._subnet(start + rest)
            rest -= end - start
        raise AssertionError(f"picked {rest} beyond {free}")

    def _gaps(self, taken: Iterable[IPNetwork]) -> Iterator[Interval]:
        after = 0
        for start, end in sorted(i for t in taken for i in self._intervals(t)):
            if start > after:
                yield after, start
            after = max(after, end)
        if after < self.size:
            yield after, self.size

    def _intervals(self, taken: IPNetwork) -> Iterator[Interval]:
        """The numbers of the subnets that overlap it."""
        first = 0
        shift = self.ranges[0].max_prefixlen - self.length
        for r in self.ranges:
            if r.version == taken.version and r.overlaps(taken):
                base = int(r.network_address)
                start = max(0, int(taken.network_address) - base) >> shift
                last = min(int(taken.broadcast_address), int(r.broadcast_address)) - base
                yield first + start, first + (last >> shift) + 1
            first += self._slots(r)

    def _subnet(self, number: int) -> IPNetwork:
        for r in self.ranges:
            if number < self._slots(r):
                start = int(r.network_address) + (number << (r.max_prefixlen - self.length))
                address = r.network_address.__class__(start)
                return ip_network(f"{address}/{self.length}")
            number -= self._slots(r)
        raise AssertionError(f"no subnet number {number} in {self}")

    def _slots(self, r: IPNetwork) -> int:
        return 1 << (self.length - r.prefixlen)


def make_pool(ranges: Iterable[IPNetwork], length: int) -> Pool:
    """The subnets of that length in ranges of one family, in the ranges' order.

    Raises ValueError where a range has no room for one.
    """
    kept: list[IPNetwork] = []
    for r in ranges:
        if r.prefixlen > length:
            raise ValueError(f"{r} has no room for a subnet of length {length}")
        if not any(_within(r, other) for other in kept):
            kept = [other for other in kept if not _within(other, r)] + [r]
    return Pool(tuple(kept), length)


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.overlaps(outer)
    )
