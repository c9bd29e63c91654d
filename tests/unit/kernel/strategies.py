"""The kernel's nouns, generated: any that a plan may hold, and crowded ones that often collide."""

from collections.abc import Callable
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
)
from typing import TypeVar

from hypothesis import strategies as st

from kernel.model import (
    Acceptance,
    Address,
    Bridge,
    Element,
    FdbEntry,
    IPAddress,
    IPInterface,
    IPNetwork,
    Link,
    Neighbour,
    Piece,
    Plan,
    Port,
    Redirect,
    Route,
    Space,
    Sysctl,
    TokenBucket,
    Vxlan,
)

T = TypeVar("T")

U32 = st.integers(0, 2**32 - 1)
BITS = {4: 32, 6: 128}
_ADDRESS: dict[int, Callable[[int], IPAddress]] = {4: IPv4Address, 6: IPv6Address}
_INTERFACE: dict[int, Callable[[tuple[int, int]], IPInterface]] = {
    4: IPv4Interface,
    6: IPv6Interface,
}

versions = st.sampled_from((4, 6))
names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", min_size=1, max_size=15)
macs = st.binary(min_size=6, max_size=6).map(lambda raw: raw.hex(":"))
mtus = st.integers(68, 65535)


def addresses_of(version: int) -> st.SearchStrategy[IPAddress]:
    """Any address of the family."""
    return st.integers(0, 2 ** BITS[version] - 1).map(_ADDRESS[version])


def interfaces_of(version: int) -> st.SearchStrategy[IPInterface]:
    """Any address of the family with any prefix length."""
    raw = st.tuples(st.integers(0, 2 ** BITS[version] - 1), st.integers(0, BITS[version]))
    return raw.map(_INTERFACE[version])


def networks_of(version: int) -> st.SearchStrategy[IPNetwork]:
    """Any network of the family."""
    return interfaces_of(version).map(lambda interface: interface.network)


def crowded_networks(version: int, spare_bits: int = 4) -> st.SearchStrategy[IPNetwork]:
    """Networks within one small block: many are equal, nested or adjacent."""
    base = {4: int(IPv4Address("10.1.2.0")), 6: int(IPv6Address("fd00:1::"))}[version]
    size = 2**spare_bits
    shortest = BITS[version] - spare_bits

    def build(offset: int, length: int) -> IPNetwork:
        return _INTERFACE[version]((base + offset, length)).network

    return st.builds(build, st.integers(0, size - 1), st.integers(shortest, BITS[version]))


ip_addresses = versions.flatmap(addresses_of)
ip_interfaces = versions.flatmap(interfaces_of)
ip_networks = versions.flatmap(networks_of)

ports = st.builds(Port, names, st.booleans(), st.booleans())
links = st.builds(
    Link,
    name=names,
    kind=st.sampled_from(("veth", "bridge", "")),
    mac=st.none() | macs,
    mtu=st.none() | mtus,
    up=st.booleans(),
    alias=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40),
    port=st.none() | ports,
    promisc=st.booleans(),
    index=st.integers(0, 2**31 - 1),
    arp=st.booleans(),
    allmulti=st.booleans(),
    queue_length=st.none() | U32,
)
tunnels = st.builds(Vxlan, st.integers(1, 2**24 - 1), st.integers(1, 65535), ip_addresses, names)
neighbours = st.builds(Neighbour, names, ip_addresses, macs)
fdb_entries = st.builds(
    FdbEntry, names, macs.filter(lambda mac: mac != "00" + ":00" * 5), ip_addresses
)
addresses = st.builds(Address, names, ip_interfaces, st.booleans(), dad=st.booleans())
buckets = st.builds(TokenBucket, names, st.integers(1, 2**64 - 1), st.integers(1, 2**32 - 1), U32)
redirects = st.builds(Redirect, names, names)
sysctls = st.builds(Sysctl, st.text(max_size=30), st.text(max_size=10), st.booleans())


def routes_of(version: int) -> st.SearchStrategy[Route]:
    """Any route of the family."""
    byte = st.integers(0, 255)
    return st.builds(
        Route,
        dst=networks_of(version),
        link=names,
        via=st.none() | addresses_of(version),
        src=st.none() | addresses_of(version),
        scope=byte,
        table=U32.filter(bool) | st.sampled_from((1, 252, 254, 255, 256)),
        priority=U32,
        mtu=st.integers(0, 65535),
        advmss=st.integers(0, 65535),
        protocol=byte,
        onlink=st.booleans(),
    )


routes = versions.flatmap(routes_of)
keys = st.binary(min_size=1, max_size=32)
elements = st.builds(Element, st.sampled_from(("inet", "bridge")), names, keys, st.none() | keys)


def tuples_of(items: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...]]:
    """Few of them."""
    return st.lists(items, max_size=3).map(tuple)


spaces = st.builds(
    Space,
    *(tuples_of(kind) for kind in (links, addresses, routes, sysctls, neighbours, buckets)),
    tuples_of(redirects),
)
bridges = st.builds(
    Bridge, names, st.none() | mtus, st.booleans(), tuples_of(ip_interfaces), st.booleans()
)
plans = st.builds(
    Plan,
    *(spaces, spaces, st.none() | bridges, tuples_of(elements), tuples_of(ip_networks)),
    tuples_of(elements),
)
acceptances = st.builds(
    Acceptance,
    tuples_of(versions.flatmap(addresses_of)),
    st.sampled_from(("", "iptables", "firewalld")),
    names,
    names,
)
pieces = st.builds(
    Piece,
    *(names, spaces, spaces, tuples_of(elements), st.none() | links, st.none() | acceptances),
    tuples_of(elements),
)
