"""The present state of one namespace, as the nouns of `model`."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

from kernel.errors import KernelError
from kernel.model import Address, Link, Port, Route, Space, Sysctl
from kernel.netlink import links as rtnl
from kernel.netlink.socket import Answer, Netlink
from kernel.sysctl import read_sysctl

_NO_SUCH_LINK = frozenset({errno.ENODEV})
# Documentation addresses (RFC 5737, RFC 3849): nobody has a route to them in particular, so the
# route that a packet to them would take is the node's default route.
_ANYWHERE = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))


def read_link(nl: Netlink, name: str) -> Link | None:
    """One link by name, None where there is none."""
    answer = nl.run([rtnl.get_link(name)], tolerate=_NO_SUCH_LINK)[0]
    return rtnl.read_link(answer.objects[0]) if answer.objects else None


def read_links(nl: Netlink) -> list[Link]:
    """All links of the namespace, bridge ports with their bridge's name."""
    links = [rtnl.read_link(m) for m in nl.dump(rtnl.list_links())]
    names = {str(link.index): link.name for link in links}
    return [replace(k, port=_named(k.port, names)) if k.port else k for k in links]


def _named(port: Port, names: dict[str, str]) -> Port:
    return replace(port, bridge=names.get(port.bridge, port.bridge))


def read_addresses(nl: Netlink, links: Iterable[Link]) -> tuple[Address, ...]:
    """The addresses of these links."""
    names = {link.index: link.name for link in links}
    only = next(iter(names)) if len(names) == 1 else 0
    found = (rtnl.read_address(m) for m in nl.dump(rtnl.list_addresses(only)))
    return tuple(replace(a, link=names[i]) for i, a in found if i in names)


def read_routes(nl: Netlink, links: Iterable[Link], versions: Iterable[int]) -> tuple[Route, ...]:
    """The unicast routes through these links in all tables."""
    names = {link.index: link.name for link in links}
    routes: list[Route] = []
    for version in versions:
        for message in nl.dump(rtnl.list_routes(version)):
            found = rtnl.read_route(message)
            routes += [replace(route, link=names[i]) for i, route in found if i in names]
    return tuple(routes)


def read_space(nl: Netlink, want: Space) -> Space:
    """What the namespace holds of the kinds that want names; sysctls of the calling thread's."""
    links = read_links(nl)
    versions = sorted({route.dst.version for route in want.routes})
    settings = ((s.path, read_sysctl(s.path)) for s in want.sysctls)
    return Space(
        links=tuple(links),
        addresses=read_addresses(nl, links) if want.addresses else (),
        routes=read_routes(nl, links, versions),
        sysctls=tuple(Sysctl(path, value) for path, value in settings if value is not None),
    )


def read_ground(nl: Netlink, *, uplink: bool, bridge: str) -> tuple[int | None, Link | None]:
    """What attachments build on: the MTU in bytes of the default route's link, and a bridge.

    uplink: whether that MTU is wanted; bridge: the name, empty where none is. None without a
    default route, and without a bridge of that name. In one exchange but for the default route's
    link: every ADD asks.
    """
    lookups = [rtnl.look_up_route(address) for address in _ANYWHERE] if uplink else []
    messages = [*lookups, rtnl.get_link(bridge)] if bridge else lookups
    answers = nl.exchange(messages) if messages else []
    routes, links = answers[: len(lookups)], answers[len(lookups) :]
    for found in links:
        if found.errno not in (0, *_NO_SUCH_LINK):
            raise KernelError("look up link", bridge, found.errno, found.hint)
    there = next((rtnl.read_link(found.objects[0]) for found in links if found.objects), None)
    return _mtu_of_first(nl, routes), there


def _mtu_of_first(nl: Netlink, routes: list[Answer]) -> int | None:
    indexes = [rtnl.route_link_index(a.objects[0]) for a in routes if a.objects and not a.errno]
    for index in filter(None, indexes):
        found = nl.run([rtnl.get_link(index=index)], tolerate=_NO_SUCH_LINK)[0].objects
        link = rtnl.read_link(found[0]) if found else None
        if link and link.name != "lo":
            return link.mtu
    return None
