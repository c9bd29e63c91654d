"""Masquerade: the part of the table `inet podwire` that all pods of a node share.

Packet path: a pod that reached itself through a translated address (hairpin) is masqueraded, or
the answer would be dropped as coming from nowhere; a pod's packet that leaves the prefixes of its
network is masqueraded, but not one to where that network's packets keep their address, nor one
between pods of the cluster (the cluster sets, whose elements are the daemon's, with this node's own
prefixes): only to those has every node a route.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from kernel.diff import Change, by_key, diff
from kernel.errors import KernelError
from kernel.model import Element, IPAddress, IPNetwork
from kernel.netlink.socket import Netlink
from kernel.nftables.generation import are_intervals, note_intervals, read_generation
from kernel.nftables.set_messages import change_elements, read_elements, read_sets
from kernel.nftables.table import (
    ADDRESS_TYPES,
    IFNAMSIZ,
    Chain,
    Set,
    Table,
    link_key,
    load,
    open_nft,
)

HAIRPIN = {v: Set("inet", f"hairpin{v}", ("ifname", a, a)) for v, a in ADDRESS_TYPES.items()}
MASQUERADE = {
    v: Set("inet", f"masquerade{v}", (a,), interval=True) for v, a in ADDRESS_TYPES.items()
}
INTERNAL = {v: Set("inet", f"internal{v}", (a, a), interval=True) for v, a in ADDRESS_TYPES.items()}
CLUSTER = {v: Set("inet", f"cluster{v}", (a,), interval=True) for v, a in ADDRESS_TYPES.items()}
NETWORK_SETS = (*MASQUERADE.values(), *INTERNAL.values())
CLUSTER_SETS = tuple(CLUSTER.values())

PART = Table(
    "inet",
    sets=(*HAIRPIN.values(), *NETWORK_SETS, *CLUSTER_SETS),
    chains=(
        Chain(
            "postrouting",
            "type nat hook postrouting priority srcnat",
            (
                "oifname . ip saddr . ip daddr @hairpin4 masquerade",
                "oifname . ip6 saddr . ip6 daddr @hairpin6 masquerade",
                "ip daddr 224.0.0.0/4 return",
                "ip6 daddr ff00::/8 return",
                "ip saddr @cluster4 ip daddr @cluster4 return",
                "ip6 saddr @cluster6 ip6 daddr @cluster6 return",
                "ip saddr @masquerade4 ip saddr . ip daddr != @internal4 masquerade",
                "ip6 saddr @masquerade6 ip6 saddr . ip6 daddr != @internal6 masquerade",
            ),
        ),
    ),
)


AddressRange = tuple[IPAddress, IPAddress]
"""The first and the last of addresses."""


@dataclass(frozen=True, slots=True)
class Masqueraded:
    """The prefixes of a network that is masqueraded, and where its packets keep their address.

    sources: the addresses of its pods; others of the prefixes may be of machines on the same
    bridge, and keep theirs. None: all of the prefixes.
    """

    prefixes: tuple[IPNetwork, ...]
    kept: tuple[IPNetwork, ...] = ()
    sources: tuple[AddressRange, ...] | None = None

    @property
    def ranges(self) -> Iterable[AddressRange]:
        """The addresses whose packets are masqueraded."""
        if self.sources is None:
            return ((p.network_address, p.broadcast_address) for p in self.prefixes)
        return self.sources


def hairpin_element(link: str, address: IPAddress) -> Element:
    """The element that lets a pod reach itself through a translated address.

    link: the node's link that leads to the pod, its bridge or its own pair's end; two networks may
    give the same address to pods behind different links.
    """
    return HAIRPIN[address.version].element(link_key(link) + address.packed * 2)


def hairpin_address(element: Element) -> IPAddress | None:
    """The address that an element of the hairpin sets is of; None for any other element."""
    if not element.set_name.startswith("hairpin"):
        return None
    pair = element.key[IFNAMSIZ:]
    return ip_address(pair[: len(pair) // 2])


def masquerade_elements(networks: Iterable[Masqueraded]) -> frozenset[Element]:
    """The elements for networks whose pods are masqueraded.

    Interval sets hold no overlaps, so of nested prefixes the widest stands for all; within a
    network, traffic from any of its prefixes to any other keeps its address.
    """
    return _masquerade_elements(tuple(networks))


# Every ADD of a masqueraded network asks, and networks hardly change.
@lru_cache(maxsize=8)
def _masquerade_elements(networks: tuple[Masqueraded, ...]) -> frozenset[Element]:
    elements: set[Element] = set()
    for version, kind in ((4, IPv4Network), (6, IPv6Network)):
        widest = _widest(p for n in networks for p in n.prefixes if isinstance(p, kind))
        ranges = (r for n in networks for r in n.ranges if r[0].version == version)
        packed = ((first.packed, last.packed) for first, last in ranges)
        elements |= _joined(MASQUERADE[version], packed)
        internal: dict[IPNetwork, set[IPNetwork]] = {}
        for network in networks:
            own = {_cover(widest, p) for p in network.prefixes if isinstance(p, kind)}
            for prefix in own:
                known = internal.setdefault(prefix, set())
                known |= own.union(p for p in network.kept if isinstance(p, kind))
        pairs = ((source, p) for source, known in internal.items() for p in _widest(known))
        elements |= {_interval(INTERNAL[version], *pair) for pair in pairs}
    return frozenset(elements)


def read_kept(prefixes: Collection[IPNetwork]) -> tuple[IPNetwork, ...]:
    """Where packets of these prefixes keep their address by the kernel's rules, but for these
    prefixes themselves."""
    with open_nft() as nl:
        internal = read_sets(nl, INTERNAL.values())
    mine = {_interval(INTERNAL[p.version], p, p) for p in prefixes}
    starts = {_bounds(element)[0] for element in mine}
    found = (e for e in internal - mine if _bounds(e)[0] in starts)
    return tuple(sorted((_network(*_bounds(e)[1]) for e in found), key=str))


def read_sources(addresses: Iterable[IPAddress]) -> tuple[AddressRange, ...]:
    """The ranges of the kernel's rules that these addresses lie in; else the address alone."""
    with open_nft() as nl:
        observed = read_sets(nl, MASQUERADE.values())
    return tuple(_range_around(address, observed) for address in addresses)


def _range_around(address: IPAddress, observed: Iterable[Element]) -> AddressRange:
    a_set = MASQUERADE[address.version]
    single = a_set.element(address.packed, address.packed)
    around = (e for e in _elements_of(a_set, observed) if is_covered(single, [e]))
    found = next(around, single)
    return ip_address(found.key), ip_address(found.key_end or found.key)


def _network(first: bytes, last: bytes) -> IPNetwork:
    bits = (int.from_bytes(first) ^ int.from_bytes(last)).bit_length()
    return ip_network((first, 8 * len(first) - bits))


def _widest(prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    # Not collapsed: two adjacent networks would become one, and keep their addresses.
    known = set(prefixes)
    lengths = {p.prefixlen for p in known}
    return [
        p
        for p in known
        if not any(p.supernet(new_prefix=n) in known for n in lengths if n < p.prefixlen)
    ]


def _cover(widest: list[IPNetwork], prefix: IPNetwork) -> IPNetwork:
    return next(w for w in widest if prefix.subnet_of(w))  # type: ignore[arg-type]


def _joined(a_set: Set, ranges: Iterable[tuple[bytes, bytes]]) -> set[Element]:
    """The elements for ranges, with one for those that overlap."""
    joined: list[tuple[bytes, bytes]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return {a_set.element(first, last) for first, last in joined}


def _interval(a_set: Set, *prefixes: IPNetwork) -> Element:
    start = b"".join(p.network_address.packed for p in prefixes)
    end = b"".join(p.broadcast_address.packed for p in prefixes)
    return a_set.element(start, end)


def is_covered(desired: Element, observed: Iterable[Element]) -> bool:
    """Whether a set holds the element, or (sets of networks merge prefixes) an interval around it.

    observed: the elements of its set.
    """
    if desired.key_end is None:
        return desired in observed
    inner = _bounds(desired)
    return any(
        all(a <= c and d <= b for (a, b), (c, d) in zip(_bounds(outer), inner, strict=True))
        for outer in observed
    )


def _bounds(element: Element) -> list[tuple[bytes, bytes]]:
    """The first and the last key of each field; the fields are addresses of one family."""
    width = len(element.key) if element.tree else len(element.key) // 2
    end = element.key_end or element.key
    cuts = range(0, len(element.key), width)
    return [(element.key[i : i + width], end[i : i + width]) for i in cuts]


def cluster_elements(ranges: Iterable[tuple[IPAddress, IPAddress]]) -> frozenset[Element]:
    """The elements for ranges (first, last) of pods' addresses; the ranges may not overlap."""
    return frozenset(
        CLUSTER[first.version].element(first.packed, last.packed) for first, last in ranges
    )


def masquerade_changes(
    networks: Iterable[Masqueraded], others: Iterable[Masqueraded] = ()
) -> tuple[Change[Element], ...]:
    """What differs from what these networks need; changes nothing.

    others: networks of which the prefixes alone are known.
    """
    desired, foreign = masquerade_elements((*networks, *others)), masquerade_elements(others)
    try:
        with open_nft() as nl:
            observed = read_sets(nl, NETWORK_SETS)
            return _changes(_with_others(desired, foreign, observed), observed)
    except KernelError:
        if desired:
            raise
        return ()  # a kernel without nftables has no element too many


def is_masqueraded(networks: Iterable[Masqueraded]) -> bool:
    """Whether the elements are just what these networks need.

    Read only where podwire does not know it of this generation of the rules. Raises KernelError.
    """
    known = tuple(networks)
    if not known:
        return not masquerade_changes(known)
    digest = _digest(masquerade_elements(known))
    with open_nft() as nl:
        generation = read_generation(nl)
    if are_intervals(generation, digest):
        return True
    if masquerade_changes(known):
        return False
    note_intervals(generation, digest)
    return True


@lru_cache(maxsize=8)
def _digest(elements: frozenset[Element]) -> int:
    text = "".join(sorted(map(repr, elements)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def apply_masquerade(
    networks: Iterable[Masqueraded], others: Iterable[Masqueraded] = ()
) -> tuple[Change[Element], ...]:
    """Bring the sets to what these networks need, in one transaction; what differed.

    others: as above. The caller holds the store's lock: two callers with different networks would
    undo each other.
    """
    desired, foreign = masquerade_elements((*networks, *others)), masquerade_elements(others)
    with open_nft() as nl:
        found = [read_elements(nl, a_set) for a_set in NETWORK_SETS]
        if desired and None in found:
            load(PART)
        observed = frozenset(element for elements in found for element in elements or ())
        changes = _changes(_with_others(desired, foreign, observed), observed)
        _apply(nl, changes)
    return changes


def _with_others(
    desired: frozenset[Element], foreign: frozenset[Element], observed: frozenset[Element]
) -> frozenset[Element]:
    """What is desired, where others' sources, and where their packets keep their address, being as
    they are."""
    names = {a_set.name for a_set in INTERNAL.values()}
    theirs = {_bounds(e)[0] for e in foreign if e.set_name in names}
    present = {e for e in observed if e.set_name in names and _bounds(e)[0] in theirs}
    covered = {e for e in foreign if e.set_name in names and is_covered(e, present)}
    kept = (desired - covered) | present
    for a_set in MASQUERADE.values():
        sources, wanted, found = (_elements_of(a_set, e) for e in (foreign, desired, observed))
        around = {e for e in found if any(is_covered(source, [e]) for source in sources)}
        ranges = ((e.key, e.key_end or e.key) for e in wanted | around)
        kept = (kept - wanted) | _joined(a_set, ranges)
    return kept


def _elements_of(a_set: Set, elements: Iterable[Element]) -> set[Element]:
    return {e for e in elements if e.set_name == a_set.name}


def element_changes(
    desired: frozenset[Element], sets: Iterable[Set]
) -> tuple[Change[Element], ...]:
    """What differs of these sets from these elements; changes nothing. Raises KernelError."""
    with open_nft() as nl:
        return _changes(desired, read_sets(nl, sets))


def ensure_elements(
    desired: frozenset[Element], sets: Iterable[Set]
) -> tuple[Change[Element], ...]:
    """Bring these sets to these elements; what differed. The tables are there.

    Raises KernelError, with errno ENOENT where the tables are missing.
    """
    with open_nft() as nl:
        changes = _changes(desired, read_sets(nl, sets))
        _apply(nl, changes)
    return changes


def _apply(nl: Netlink, changes: tuple[Change[Element], ...]) -> None:
    add = [change.desired for change in changes if change.desired is not None]
    change_elements(nl, add, [c.observed for c in changes if c.observed is not None])


def _changes(
    desired: Iterable[Element], observed: Iterable[Element]
) -> tuple[Change[Element], ...]:
    return tuple(diff(by_key(desired), by_key(observed)))
