"""Which address an owner gets.

Of each range set one address: the requested one, else the next that was never handed out, else
the one that was freed longest ago and whose rest period is over. The store's unique constraints
would stop a second owner even if this module were wrong.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

from ipam import pool as pools
from ipam.boot import render_duration
from ipam.config import IpamConf
from ipam.errors import AddressResting, AddressTaken, RangeExhausted, translated
from ipam.pool import Freed, Pool
from ipam.ranges import (
    IPAddress,
    Range,
    RangeSet,
    gateways_of,
    interface_of,
    range_of,
    render_set,
    size_of,
)
from ipam.transaction import Allocation, Owner, Transaction

LONGEST_QUEUE = 16_384
"""A range that never runs out, such as a /64, reuses addresses when this many wait; else its queue
of freed addresses would grow forever."""

OLDEST_SHOWN = 5

WHAT_TO_DO = (
    "remove what is no longer in use (the runtime's GC, or podwire-ipam list and"
    " podwire-ipam release), or widen the range"
)


@dataclass(frozen=True, slots=True)
class Assigned:
    """An address with its subnet's prefix length, and the gateway of its range."""

    address: IPv4Interface | IPv6Interface
    gateway: IPAddress | None


@dataclass(frozen=True, slots=True)
class Space:
    """How many addresses of a range set pods can get, and how many are allocated."""

    size: int
    allocated: int


@dataclass(frozen=True, slots=True)
class _Search:
    """What the search for one address needs."""

    transaction: Transaction
    conf: IpamConf
    owner: Owner
    gateways: frozenset[IPAddress]


def allocate(tx: Transaction, conf: IpamConf, owner: Owner) -> tuple[Assigned, ...]:
    """Reserve one address per range set for the owner, all or none of them.

    An owner that already has addresses of these sets gets the same ones again. Raises
    RangeExhausted, AddressResting (every free address rests), AddressTaken (the requested
    address is taken, or the owner has another one of its set), StoreError.
    """
    search = _Search(tx, conf, owner, gateways_of(conf.range_sets))
    tx.require_writable()
    # One set alone needs no undo: what a search moves before it fails is right without it.
    undo = tx.savepoint() if len(conf.range_sets) > 1 else nullcontext()
    with translated(tx.path), undo:
        before = tx.addresses(owner)
        return tuple(_assign(search, range_set, before) for range_set in conf.range_sets)


def free_space(tx: Transaction, conf: IpamConf) -> tuple[Space, ...]:
    """Size and use of every range set; counts what is allocated, enumerates no range."""
    gateways = gateways_of(conf.range_sets)
    return tuple(
        Space(size_of(range_set, gateways), _allocated_in(tx, conf.network, range_set))
        for range_set in conf.range_sets
    )


def _allocated_in(tx: Transaction, network: str, range_set: RangeSet) -> int:
    return sum(tx.count_in(network, range_) for range_ in range_set)


def _assign(search: _Search, range_set: RangeSet, before: tuple[IPAddress, ...]) -> Assigned:
    requested = next((a for a in search.conf.requested if range_of(range_set, a)), None)
    mine = [a for a in before if range_of(range_set, a)]
    if mine:
        address = _same_again(search.owner, mine, requested)
    elif requested is not None:
        address = _reserve_requested(search, requested)
    else:
        address = _reserve_any(search, range_set)
    range_ = range_of(range_set, address)
    assert range_ is not None  # noqa: S101
    return Assigned(interface_of(address, range_.subnet.prefixlen), range_.gateway)


def _same_again(owner: Owner, mine: list[IPAddress], requested: IPAddress | None) -> IPAddress:
    if requested is None:
        return mine[0]
    if requested not in mine:
        raise AddressTaken(
            f"requested address {requested}, but {owner} already has {mine[0]}",
            "delete the attachment first",
        )
    return requested


def _reserve_requested(search: _Search, address: IPAddress) -> IPAddress:
    tx = search.transaction
    freed = tx.freed_at(search.conf.network, address)
    wait = 0.0 if freed is None else _wait(search, *freed)
    if wait > 0:
        raise AddressResting(
            f"requested address {address} is resting",
            f"it is free in {render_duration(wait + 1)} (restPeriod {search.conf.rest:g} s)",
        )
    tx.reserve(search.owner, address)
    return address


def _wait(search: _Search, freed_at: float, boot_id: str) -> float:
    """Seconds until a freed address has rested, 0 if it has.

    One of an earlier boot has, and so has one that was freed in the future, which cannot be.
    """
    elapsed = search.transaction.clock.uptime() - freed_at
    if boot_id != search.transaction.boot_id or elapsed < 0:
        return 0.0
    return max(0.0, search.conf.rest - elapsed)


def _reserve_any(search: _Search, range_set: RangeSet) -> IPAddress:
    address = _reserve_unused(search, range_set) or _reserve_freed(search, range_set)
    if address is None and _take_over_freed(search, range_set):
        address = _reserve_freed(search, range_set)
    if address is None:
        raise _none_left(search, range_set)
    return address


def _load(search: _Search, range_: Range) -> Pool:
    return pools.load(search.transaction.connection, search.conf.network, range_)


def _head(search: _Search, pool: Pool) -> Freed | None:
    return pools.queue_head(search.transaction.connection, pool, search.gateways)


def _reserve_unused(search: _Search, range_set: RangeSet) -> IPAddress | None:
    """The next address of the first range that has one left, unless a range's queue is long."""
    tx = search.transaction
    for range_ in range_set:
        pool = _load(search, range_)
        head = _head(search, pool) if pool.freed >= LONGEST_QUEUE else None
        if head is not None and _wait(search, head.freed_at, head.boot_id) == 0:
            tx.reserve(search.owner, head.address)
            return head.address
        address = pools.take_next(tx.connection, pool, search.gateways)
        if address is not None:
            tx.insert(search.owner, address, pool.id)
            return address
    return None


def _heads(search: _Search, range_set: RangeSet) -> list[Freed]:
    """The longest-freed address of every range, the longest of all first."""
    heads = [_head(search, _load(search, range_)) for range_ in range_set]
    return sorted((head for head in heads if head is not None), key=lambda head: head.seq)


def _reserve_freed(search: _Search, range_set: RangeSet) -> IPAddress | None:
    for head in _heads(search, range_set):
        if _wait(search, head.freed_at, head.boot_id) == 0:
            search.transaction.reserve(search.owner, head.address)
            return head.address
    return None


def _take_over_freed(search: _Search, range_set: RangeSet) -> bool:
    connection = search.transaction.connection
    found = [pools.take_over_freed(connection, _load(search, r), r) for r in range_set]
    return any(found)


def _none_left(search: _Search, range_set: RangeSet) -> AddressResting | RangeExhausted:
    heads = _heads(search, range_set)
    if not heads:
        return _exhausted(search, range_set)
    wait = min(_wait(search, head.freed_at, head.boot_id) for head in heads)
    connection = search.transaction.connection
    queues = (_load(search, range_) for range_ in range_set)
    resting = sum(pools.count_queue(connection, pool, search.gateways) for pool in queues)
    return AddressResting(
        f"every free address of {render_set(range_set)} is resting: {resting} of"
        f" {size_of(range_set, search.gateways)}",
        f"the next is free in {render_duration(wait + 1)} (restPeriod {search.conf.rest:g} s)",
    )


def _exhausted(search: _Search, range_set: RangeSet) -> RangeExhausted:
    tx, network = search.transaction, search.conf.network
    size = size_of(range_set, search.gateways)
    if not size:
        return RangeExhausted(
            f"{render_set(range_set)} of network {network} has no address for pods: the gateway"
            " takes the only one",
            "widen the range, or name another gateway",
        )
    allocated = _allocated_in(tx, network, range_set)
    every = (a for range_ in range_set for a in tx.oldest(network, range_, OLDEST_SHOWN))
    oldest, now = sorted(every, key=lambda a: a.created_at), tx.clock.wall()
    shown = "; ".join(_render_allocation(a, now) for a in oldest[:OLDEST_SHOWN])
    return RangeExhausted(
        f"no address is free in {render_set(range_set)} of network {network}:"
        f" {allocated} of {size} are allocated",
        f"oldest: {shown}; {WHAT_TO_DO}",
    )


def _render_allocation(allocation: Allocation, now: float) -> str:
    age = render_duration(now - allocation.created_at)
    return f"{allocation.address} to {allocation.owner} for {age}"
