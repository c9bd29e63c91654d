"""The observed state of one namespace, as the nouns of `model`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from itertools import islice

from kernel.errors import KernelError
from kernel.model import (
    RTPROT_PODWIRE,
    RTPROT_PODWIRE_PEERS,
    TABLE_MAIN,
    Address,
    Link,
    Neighbour,
    Redirect,
    Route,
    Space,
    Sysctl,
    TokenBucket,
)
from kernel.netlink import links, neighbours, routes
from kernel.netlink.socket import Answer, Netlink
from kernel.sysctl import read_sysctl

_OUR_ALIAS = "podwire"  # begins the alias of each link of ours
_OURS = frozenset({RTPROT_PODWIRE, RTPROT_PODWIRE_PEERS})
# Documentation addresses (RFC 5737, RFC 3849): no route leads to them in particular, so the route
# that a packet to them would take is the node's default route.
_ANYWHERE = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
_EMPTY_MTU = 1500  # ETH_DATA_LEN
IPVS = "/proc/thread-self/net/ip_vs"
"""Lists the services of IPVS, after three lines of headings (net/netfilter/ipvs/ip_vs_ctl.c)."""


def read_link(nl: Netlink, name: str = "", index: int = 0) -> Link | None:
    """One link by name or index, None where there is none."""
    answer = nl.run([links.get_link(name, index)], tolerate=links.GONE)[0]
    return links.parse_link(answer.objects[0]) if answer.objects else None


def read_peer_index(nl: Netlink, name: str) -> int:
    """The index of a pair's other end, in its own namespace; 0 where no link of a pair is so
    named."""
    answer = nl.run([links.get_link(name)], tolerate=links.GONE)[0]
    if not answer.objects or links.parse_link(answer.objects[0]).kind != "veth":
        return 0
    return links.parse_peer_index(answer.objects[0])


def read_links(nl: Netlink) -> list[Link]:
    """All links of the namespace, bridge ports with their bridge's name."""
    found = [links.parse_link(m) for m in nl.dump(links.list_links())]
    names = {str(link.index): link.name for link in found}
    return [with_bridge(link, names) for link in found]


def with_bridge(link: Link, names: Mapping[str, str]) -> Link:
    """A link as it was parsed, with its bridge's name. names: by the index, in text."""
    if link.port is None:
        return link
    return replace(
        link, port=replace(link.port, bridge=names.get(link.port.bridge, link.port.bridge))
    )


def has_virtual_services() -> bool:
    """Whether IPVS translates the address of any service in this thread's namespace."""
    try:
        with open(IPVS) as listed:
            return any(islice(listed, 3, 4))
    except OSError:  # a kernel without IPVS
        return False


def read_addresses(nl: Netlink, of: Iterable[Link]) -> tuple[Address, ...]:
    """The addresses of these links."""
    names = {link.index: link.name for link in of}
    only = next(iter(names)) if len(names) == 1 else 0
    found = (links.parse_address(m) for m in nl.dump(links.list_addresses(only)))
    return tuple(replace(a, link=names[i]) for i, a in found if i in names)


def read_routes(nl: Netlink, through: Iterable[Link], versions: Iterable[int]) -> tuple[Route, ...]:
    """The unicast routes through these links in all tables."""
    names = {link.index: link.name for link in through}
    found: list[Route] = []
    for version in versions:
        for message in nl.dump(routes.list_routes(version)):
            hops = routes.parse_route(message)
            found += [replace(route, link=names[i]) for i, route in hops if i in names]
    return tuple(found)


def read_connected(nl: Netlink, versions: Iterable[int]) -> list[Route]:
    """The on-link routes of the main table that are not podwire's, nor through its links."""
    others = (link for link in read_links(nl) if not (link.alias or "").startswith(_OUR_ALIAS))
    names = {link.index: link.name for link in others}
    found: list[Route] = []
    for version in versions:
        for message in nl.dump(routes.list_routes(version)):
            # Before decoding: there are thousands of routes to other nodes.
            if routes.mark_of(message) not in _OURS:
                hops = routes.parse_route(message)
                found += [replace(route, link=names[i]) for i, route in hops if i in names]
    return [r for r in found if r.via is None and r.table == TABLE_MAIN]


def read_space(nl: Netlink, desired: Space) -> Space:
    """What the namespace holds of the kinds that desired names; sysctls of the calling thread's."""
    present = read_links(nl)
    versions = sorted({route.dst.version for route in desired.routes})
    settings = ((s.path, read_sysctl(s.path)) for s in desired.sysctls)
    buckets, redirects = _read_limits(nl, desired, present)
    return Space(
        links=tuple(present),
        addresses=read_addresses(nl, present) if desired.addresses else (),
        routes=read_routes(nl, present, versions),
        sysctls=tuple(Sysctl(path, value) for path, value in settings if value is not None),
        neighbours=tuple(_read_neighbours(nl, desired, present)),
        buckets=buckets,
        redirects=redirects,
    )


def _read_limits(
    nl: Netlink, desired: Space, present: list[Link]
) -> tuple[tuple[TokenBucket, ...], tuple[Redirect, ...]]:
    if not (desired.buckets or desired.redirects):
        return (), ()
    from kernel.traffic_control import read_limits  # few attachments have limits

    return read_limits(nl, desired, {link.name: link.index for link in present})


def _read_neighbours(nl: Netlink, desired: Space, present: list[Link]) -> Iterator[Neighbour]:
    """The permanent ones of the links and families that desired has some of."""
    versions = {(n.link, n.address.version) for n in desired.neighbours}
    indexes = {link.name: link.index for link in present}
    for name, version in sorted(versions):
        for message in nl.dump(neighbours.list_neighbours(version, indexes.get(name, 0))):
            index, entry, permanent = neighbours.parse_entry(message, name)
            if isinstance(entry, Neighbour) and permanent and index == indexes.get(name):
                yield entry


def read_uplink_and_bridge(
    nl: Netlink, *, uplink: bool, bridge: str
) -> tuple[int | None, Link | None, int | None]:
    """The MTU in bytes of the default route's link, a bridge, and the MTU that it was given.

    uplink: whether that MTU is needed; bridge: the name, empty where none is. None without a
    default route and without a bridge of that name; the last also where it has no port that is up,
    and the MTU that the kernel gives an empty bridge, until a port brings another one
    (net/bridge/br_if.c, br_mtu_auto_adjust). In one exchange but for the default route's link:
    every ADD asks.
    """
    lookups = [routes.get_route(address) for address in _ANYWHERE] if uplink else []
    messages = [*lookups, links.get_link(bridge)] if bridge else lookups
    answers = nl.exchange(messages) if messages else []
    for answer in answers[len(lookups) :]:
        if answer.errno not in (0, *links.GONE):
            raise KernelError("look up link", bridge, answer.errno, answer.hint)
    message = next((a.objects[0] for a in answers[len(lookups) :] if a.objects), None)
    found = links.parse_link(message) if message else None
    mtu = found.mtu if found else None
    if message and mtu == _EMPTY_MTU and not links.parse_operational(message)[1]:
        mtu = None
    return _mtu_of_first(nl, answers[: len(lookups)]), found, mtu


def _mtu_of_first(nl: Netlink, answers: list[Answer]) -> int | None:
    indexes = [routes.parse_link_index(a.objects[0]) for a in answers if a.objects and not a.errno]
    for index in filter(None, indexes):
        link = read_link(nl, index=index)
        if link and link.name != "lo":
            return link.mtu
    return None
