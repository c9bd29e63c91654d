"""What the store records of a network that is masqueraded: its prefixes, where its packets keep
their address, and the ranges of its pods' addresses.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

from kernel.model import IPAddress, IPNetwork
from kernel.nftables.masquerade import AddressRange, Masqueraded

Prefixes = tuple[IPNetwork, ...]


@lru_cache(maxsize=64)
def load(record: str | None) -> Masqueraded:
    """Read a record, of this version or an earlier one; None: of a network that has none yet."""
    raw = json.loads(record) if record else {"prefixes": [], "sources": []}
    lists = raw if isinstance(raw, dict) else {"prefixes": raw}
    prefixes, kept = (tuple(map(ip_network, lists.get(key, ()))) for key in ("prefixes", "kept"))
    ranges = lists.get("sources")
    sources = None if ranges is None else tuple(map(_load_range, ranges))
    return Masqueraded(prefixes, kept, sources)


def _load_range(ends: list[str]) -> AddressRange:
    first, last = map(ip_address, ends)
    return first, last


def dump(network: Masqueraded) -> str:
    """The record as JSON text; in the form of earlier versions where that says it all."""
    prefixes, kept = ([*map(str, each)] for each in (network.prefixes, network.kept))
    if network.sources is not None:
        sources = [[*map(str, ends)] for ends in network.sources]
        return json.dumps({"prefixes": prefixes, "kept": kept, "sources": sources})
    return json.dumps({"prefixes": prefixes, "kept": kept} if kept else prefixes)


def extend_sources(
    known: Masqueraded,
    prefixes: Prefixes,
    more: tuple[AddressRange, ...],
    pods: Callable[[], Iterable[IPAddress]],
) -> tuple[AddressRange, ...] | None:
    """The sources of a network with more, of these prefixes; None where they are all addresses.

    pods: the addresses of all pods of the network; rarely needed.
    """
    before = known.sources
    if before is None:
        if _hold_all(more, prefixes):
            return None
        # The ranges were others, or an earlier version knew none: its pods' addresses count.
        others = [p for p in known.prefixes if p not in prefixes]
        before = _with_sources(whole_ranges(others), single_ranges(pods()))
    found = _with_sources(before, more)
    return None if _hold_all(found, {*known.prefixes, *prefixes}) else found


def _hold_all(ranges: Collection[AddressRange], prefixes: Iterable[IPNetwork]) -> bool:
    return all(any(_holds(each, prefix) for each in ranges) for prefix in prefixes)


def _holds(each: AddressRange, prefix: IPNetwork) -> bool:
    """Whether a range has all addresses of the prefix, but perhaps its first and its last."""
    if each[0].version != prefix.version:
        return False
    edge = 1 if prefix.num_addresses > 2 else 0
    # Every ADD asks: numbers are compared, for addresses would be made.
    first, last = int(prefix.network_address) + edge, int(prefix.broadcast_address) - edge
    return int(each[0]) <= first and last <= int(each[1])


def whole_ranges(prefixes: Iterable[IPNetwork]) -> tuple[AddressRange, ...]:
    """All addresses of each prefix."""
    return tuple((p.network_address, p.broadcast_address) for p in prefixes)


def single_ranges(addresses: Iterable[IPAddress]) -> tuple[AddressRange, ...]:
    """Each address as a range."""
    return tuple((address, address) for address in addresses)


def _with_sources(
    known: Iterable[AddressRange], more: Iterable[AddressRange]
) -> tuple[AddressRange, ...]:
    """All of them, but for those that lie in another."""
    found = list(known)
    for new in more:
        if not any(contains(each, new) for each in found):
            found = [*(each for each in found if not contains(new, each)), new]
    return tuple(found)


def contains(outer: AddressRange, inner: AddressRange) -> bool:
    """Whether a range has all addresses of another."""
    same = outer[0].version == inner[0].version
    return same and int(outer[0]) <= int(inner[0]) and int(inner[1]) <= int(outer[1])
