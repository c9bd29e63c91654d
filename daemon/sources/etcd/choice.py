"""Which subnets this node is to hold: what it has, what it had, else a free one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from daemon.sources.etcd.subnet_pool import Pool
from daemon.sources.etcd.values import holders_text
from daemon.sources.remote import SourceError
from kernel.model import IPAddress, IPNetwork


class NoSubnet(SourceError):
    """This node cannot have a subnet; the text says why, and what would help."""


class SubnetLost(NoSubnet):
    """What the pods of this node live in is another node's by now. It is never taken back."""

    def __init__(self, subnet: IPNetwork, rival: IPNetwork, holder: str) -> None:
        super().__init__(
            f"subnet {subnet} of this node was leased to {holder} ({rival}) when its lease had"
            " ended: its pods cannot be reached; delete them, then stop the daemon, run"
            " `podwirectl cleanup` and start it again, and it gets another subnet"
        )
        self.subnet, self.holder = subnet, holder


class NameTaken(NoSubnet):
    """Another machine has this node's name. Its keys are never written over."""

    def __init__(self, name: str, addresses: Iterable[IPAddress], key: str) -> None:
        where = " and ".join(map(str, addresses))
        super().__init__(
            f"{name} is registered by another machine, {where}: give this one another name, or"
            f" delete the key {key} if that machine is gone"
        )


class PoolExhausted(NoSubnet):
    """Nothing is free in a range."""

    def __init__(self, pool: Pool, holders: Mapping[IPNetwork, str]) -> None:
        within = {s: n for s, n in holders.items() if any(s.overlaps(r) for r in _same(pool, s))}
        super().__init__(
            f"no /{pool.length} is free in {pool}: {len(within)} subnets are held:"
            f" {holders_text(within) or 'by nobody, the nodes have their addresses in it'}"
        )


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a node would like to have.

    pools: one for each family. kept: subnets in which its pods live: these or none. preferred:
    subnets that it had before, or that its record lists.
    """

    name: str
    pools: tuple[Pool, ...]
    kept: tuple[IPNetwork, ...] = ()
    preferred: tuple[IPNetwork, ...] = ()


def choose_subnets(
    wishes: Wishes,
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
    for pool in wishes.pools:
        mine = _regain(wishes, pool, holders)
        if not mine:
            subnet = pool.choose(taken, pick)
            if subnet is None:
                raise PoolExhausted(pool, holders)
            mine = [subnet]
        chosen += mine
    return tuple(chosen)


def _regain(wishes: Wishes, pool: Pool, holders: Mapping[IPNetwork, str]) -> list[IPNetwork]:
    """What the node has or had in a pool, and can have; empty for a new node."""
    kept = [subnet for subnet in wishes.kept if subnet in pool]
    for subnet in kept:
        rival = _rival(subnet, wishes.name, holders)
        if rival is not None:
            raise SubnetLost(subnet, rival, holders[rival])
    if kept:
        return kept
    had = [s for s in dict.fromkeys(wishes.preferred) if s in pool]
    held = [s for s in had if holders.get(s) == wishes.name]
    free = [s for s in had if _rival(s, wishes.name, holders) is None]
    # One that was put down for the node by hand, before it was first seen.
    reserved = sorted(s for s in holders if holders[s] == wishes.name and s in pool)
    return held or reserved[:1] or free


def _rival(subnet: IPNetwork, me: str, holders: Mapping[IPNetwork, str]) -> IPNetwork | None:
    """What another node holds of it."""
    overlapping = (s for s in holders if s.version == subnet.version and s.overlaps(subnet))
    return next((s for s in overlapping if holders[s] != me), None)


def _same(pool: Pool, subnet: IPNetwork) -> list[IPNetwork]:
    return [r for r in pool.ranges if r.version == subnet.version]
