"""Which subnets a node leases: what it holds or held before, else a free one. Pure.

Subnets of one length are numbered through all ranges of a family; what is taken is a list of
intervals of those numbers. So a range of any size costs what is taken in it, never its size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from daemon.model import is_within, overlap
from daemon.sources.etcd.keys import holders_text
from daemon.sources.remote import SourceError
from kernel.model import IPAddress, IPNetwork

Interval = tuple[int, int]
"""From a number up to another one, which is excluded."""


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
        return subnet.prefixlen == self.length and any(is_within(subnet, r) for r in self.ranges)

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
            if overlap(r, taken):
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
        if not any(is_within(r, other) for other in kept):
            kept = [other for other in kept if not is_within(other, r)] + [r]
    return Pool(tuple(kept), length)


# -- choosing


class NoSubnet(SourceError):
    """This node cannot have a subnet; the text has the reason and a remedy."""


class SubnetLost(NoSubnet):
    """Another node holds the subnet of this node's pods by now. It is never taken back."""

    def __init__(self, subnet: IPNetwork, other: IPNetwork, holder: str) -> None:
        super().__init__(
            f"subnet {subnet} of this node was leased to {holder} ({other}) when its lease had"
            " ended: its pods cannot be reached; delete them, then stop the daemon, run"
            " `podwirectl cleanup` and start it again, and it gets another subnet"
        )


class NameTaken(NoSubnet):
    """Another machine has this node's name. Its keys are never overwritten."""

    def __init__(self, name: str, addresses: Iterable[IPAddress], key: str) -> None:
        where = " and ".join(map(str, addresses))
        super().__init__(
            f"{name} is registered by another machine, {where}: give this one another name, or"
            f" delete the key {key} if that machine is gone"
        )


class PoolExhausted(NoSubnet):
    """No subnet of a range is free."""

    def __init__(self, pool: Pool, holders: Mapping[IPNetwork, str]) -> None:
        within = {s: n for s, n in holders.items() if any(overlap(s, r) for r in pool.ranges)}
        super().__init__(
            f"no /{pool.length} is free in {pool}: {len(within)} subnets are held:"
            f" {holders_text(within) or 'none, the nodes have their addresses in it'}"
        )


@dataclass(frozen=True, slots=True)
class Candidates:
    """The subnets that a node prefers to a free one.

    pools: one for each family. kept: subnets of its running pods: these or none. preferred:
    subnets that it held before, or that its record lists.
    """

    name: str
    pools: tuple[Pool, ...]
    kept: tuple[IPNetwork, ...] = ()
    preferred: tuple[IPNetwork, ...] = ()


def choose_subnets(
    candidates: Candidates,
    holders: Mapping[IPNetwork, str],
    addresses: Iterable[IPAddress],
    pick: Callable[[int], int],
) -> tuple[IPNetwork, ...]:
    """The subnets, in the order of the pools. Raises NoSubnet.

    holders: of every subnet. addresses: of nodes, which must not be in a subnet. pick: as in
    `Pool.choose`.
    """
    taken = [*holders, *map(ip_network, addresses)]
    chosen: list[IPNetwork] = []
    for pool in candidates.pools:
        mine = _reuse(candidates, pool, holders)
        if not mine:
            subnet = pool.choose(taken, pick)
            if subnet is None:
                raise PoolExhausted(pool, holders)
            mine = [subnet]
        chosen += mine
    return tuple(chosen)


def _reuse(candidates: Candidates, pool: Pool, holders: Mapping[IPNetwork, str]) -> list[IPNetwork]:
    """What the node holds or held of a pool, and can hold; empty for a new node."""
    kept = [subnet for subnet in candidates.kept if subnet in pool]
    for subnet in kept:
        other = _conflicting(subnet, candidates.name, holders)
        if other is not None:
            raise SubnetLost(subnet, other, holders[other])
    if kept:
        return kept
    former = [s for s in dict.fromkeys(candidates.preferred) if s in pool]
    held = [s for s in former if holders.get(s) == candidates.name]
    free = [s for s in former if _conflicting(s, candidates.name, holders) is None]
    # A subnet that an operator reserved for the node before its first start.
    reserved = sorted(s for s in holders if holders[s] == candidates.name and s in pool)
    return held or reserved[:1] or free


def _conflicting(subnet: IPNetwork, me: str, holders: Mapping[IPNetwork, str]) -> IPNetwork | None:
    """A subnet of another node that overlaps it."""
    return next((s for s in holders if overlap(s, subnet) and holders[s] != me), None)
