"""Addresses and ranges of them: pure values, the arithmetic over them, the store's encoding.

The rules are those of the reference `host-local` (plugins/ipam/host-local/backend/allocator):
a range lies in one subnet, starts at network + 1 and ends at the last usable address unless the
configuration says otherwise, and its gateway is network + 1 unless given.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from ipam.errors import NotAnAddress

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPInterface = IPv4Interface | IPv6Interface

SMALLEST_HOST_BITS = 2


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses `start` to `end`, both included, of one subnet; `gateway` is never handed out."""

    subnet: IPNetwork
    start: IPAddress
    end: IPAddress
    gateway: IPAddress | None

    def __contains__(self, address: IPAddress) -> bool:
        if address.version != self.subnet.version:
            return False
        return int(self.start) <= int(address) <= int(self.end)

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    def overlaps(self, other: Range) -> bool:
        """Whether any address lies in both ranges."""
        if self.subnet.version != other.subnet.version:
            return False
        return int(self.start) <= int(other.end) and int(other.start) <= int(self.end)


def interface_of(address: IPAddress, prefix_length: int) -> IPInterface:
    """The address with a prefix length; `ip_interface` would write and read it as text."""
    return _INTERFACE[address.version]((int(address), prefix_length))


_INTERFACE: dict[int, type[IPv4Interface] | type[IPv6Interface]] = {
    4: IPv4Interface,
    6: IPv6Interface,
}

RangeSet = tuple[Range, ...]


def render_set(range_set: RangeSet) -> str:
    """The range set as the messages name it: `first-last,first-last`."""
    return ",".join(str(r) for r in range_set)


def range_of(range_set: RangeSet, address: IPAddress) -> Range | None:
    """The range of the set that contains the address, or None."""
    return next((r for r in range_set if address in r), None)


def sets_overlap(one: RangeSet, other: RangeSet) -> bool:
    """Whether any address lies in both range sets."""
    return any(a.overlaps(b) for a in one for b in other)


def gateways_of(range_sets: Iterable[RangeSet]) -> frozenset[IPAddress]:
    """Every gateway of the range sets: addresses that no pod may get."""
    return frozenset(r.gateway for rs in range_sets for r in rs if r.gateway is not None)


def size_of(range_set: RangeSet, gateways: frozenset[IPAddress]) -> int:
    """How many addresses of the set pods can get (computed, never enumerated)."""
    addresses = sum(int(r.end) - int(r.start) + 1 for r in range_set)
    return addresses - sum(1 for g in gateways if range_of(range_set, g) is not None)


def build_range(
    subnet: IPNetwork,
    start: IPAddress | None = None,
    end: IPAddress | None = None,
    gateway: IPAddress | None = None,
) -> Range:
    """Fill in the defaults and check the range.

    Raises ValueError that names the configuration key at fault and its value.
    """
    if subnet.max_prefixlen - subnet.prefixlen < SMALLEST_HOST_BITS:
        raise ValueError(f"subnet {subnet} is too small to allocate from")
    first = start if start is not None else subnet.network_address + 1
    last = end if end is not None else _last_usable(subnet)
    _check_inside("rangeStart", first, subnet)
    _check_inside("rangeEnd", last, subnet)
    if int(last) < int(first):
        raise ValueError(f"rangeEnd {last} is before rangeStart {first}")
    return Range(subnet, first, last, _gateway(subnet, gateway))


def _last_usable(subnet: IPNetwork) -> IPAddress:
    # IPv6 has no broadcast address, so its last address is usable.
    return subnet.broadcast_address - 1 if subnet.version == 4 else subnet.broadcast_address


def _check_inside(key: str, address: IPAddress, subnet: IPNetwork) -> None:
    if address.version != subnet.version or address not in subnet:
        raise ValueError(f"{key} {address} is not in subnet {subnet}")


def _gateway(subnet: IPNetwork, gateway: IPAddress | None) -> IPAddress:
    """A gateway may lie outside the subnet (fe80::1 is common), but not in the other family."""
    if gateway is None:
        return subnet.network_address + 1
    if gateway.version != subnet.version:
        raise ValueError(f"gateway {gateway} is not of the address family of subnet {subnet}")
    return gateway


def check_set(range_set: RangeSet) -> None:
    """One family, no overlap, not empty; raises ValueError that names the ranges at fault."""
    if not range_set:
        raise ValueError("the range set is empty")
    if len({r.subnet.version for r in range_set}) > 1:
        raise ValueError(f"IPv4 and IPv6 ranges in one range set: {render_set(range_set)}")
    for index, one in enumerate(range_set):
        for other in range_set[index + 1 :]:
            if one.overlaps(other):
                raise ValueError(f"ranges {one} and {other} overlap")


def encode(address: IPAddress) -> bytes:
    """The address as the store keeps it: one byte of family, then the address, big-endian.

    Blobs of one family have one length, so SQLite's byte order is the order of the addresses; the
    family byte keeps an IPv6 address from sorting in between IPv4 addresses.
    """
    return bytes((address.version,)) + address.packed


def decode(blob: object) -> IPAddress:
    """The address of a blob in the store. Raises NotAnAddress."""
    if not isinstance(blob, bytes):
        raise NotAnAddress(f"{blob!r} is not an address")
    if len(blob) == 5 and blob[0] == 4:
        return IPv4Address(blob[1:])
    if len(blob) == 17 and blob[0] == 6:
        return IPv6Address(blob[1:])
    raise NotAnAddress(f"{blob.hex()} is not an address")
