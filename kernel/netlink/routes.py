"""Route messages: nouns to messages and back (linux/rtnetlink.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

from kernel.model import RTPROT_PODWIRE_PEERS, TABLE_LOCAL, TABLE_MAIN, IPAddress, IPNetwork, Route
from kernel.netlink.codec import (
    FAMILY,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    attributes,
    nested,
    number,
    number_in,
    u32,
)

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_GATEWAY = 1, 2, 3, 4, 5
_RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH, _RTA_TABLE = 6, 7, 8, 9, 15
_RTA_VIA, _VIA_ADDRESS = 18, 2  # struct rtvia: a family, then the address
_RTAX_MTU, _RTAX_ADVMSS = 2, 8
_RTN_UNICAST, _RTN_LOCAL, _RT_TABLE_COMPAT = 1, 2, 252
_RTN_THROW = 9
_REFUSALS = frozenset({6, 7, 8, _RTN_THROW})  # RTN_BLACKHOLE, _UNREACHABLE, _PROHIBIT
_RTM_F_CLONED, _RTM_F_LOOKUP_TABLE = 0x200, 0x1000
_RTNH_F_ONLINK = 4
_RT_SCOPE_NOWHERE = 255  # in a deletion: whatever its scope is
# What a user leaves open is 1024 in IPv6 (linux/ipv6_route.h, IP6_RT_PRIO_USER).
_IPV6_PRIORITY = 1024

_RTMSG = struct.Struct("=BBBBBBBBI")
_AT_PROTOCOL = 5  # in struct rtmsg
_NEXT_HOP = struct.Struct("=HxxI")


def _route_body(route: Route, index: int) -> bytes:
    table = route.table if route.table < 256 else _RT_TABLE_COMPAT
    head = _RTMSG.pack(
        FAMILY[route.dst.version], route.dst.prefixlen, 0, 0,
        table, route.protocol, route.scope, _RTN_LOCAL if route.local else _RTN_UNICAST,
        _RTNH_F_ONLINK * route.onlink,
    )  # fmt: skip
    parts = [head, u32(_RTA_OIF, index), u32(_RTA_TABLE, route.table)]
    if route.dst.prefixlen:
        parts.append(attribute(_RTA_DST, route.dst.network_address.packed))
    if route.via is not None:
        parts.append(_next_hop(route.via, route.dst.version))
    if route.src is not None:
        parts.append(attribute(_RTA_PREFSRC, route.src.packed))
    if route.priority:
        parts.append(u32(_RTA_PRIORITY, route.priority))
    metrics = [u32(k, v) for k, v in ((_RTAX_MTU, route.mtu), (_RTAX_ADVMSS, route.advmss)) if v]
    if metrics:
        parts.append(nested(_RTA_METRICS, *metrics))
    return b"".join(parts)


def _next_hop(via: IPAddress, version: int) -> bytes:
    if via.version == version:
        return attribute(_RTA_GATEWAY, via.packed)
    return attribute(_RTA_VIA, struct.pack("=H", FAMILY[via.version]) + via.packed)


def add_route(route: Route, index: int, *, exclusive: bool = False) -> Message:
    """Add a route; exclusive: EEXIST where another one has its destination and priority."""
    via = ("via", route.via) if route.via else ()
    what = ("add route", route.dst, *via, "dev", route.link)
    flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0)
    return Message(RTM_NEWROUTE, flags, _route_body(route, index), what)


def set_route(route: Route, index: int, flags: int) -> Message:
    """Add or replace a route, as the flags say; without text for errors, which is cheaper."""
    return Message(RTM_NEWROUTE, flags, _route_body(route, index))


def delete_route(route: Route, index: int) -> Message:
    """Delete the route to a destination by its mark (protocol) and link; index 0: any link."""
    table = route.table if route.table < 256 else _RT_TABLE_COMPAT
    head = _RTMSG.pack(
        FAMILY[route.dst.version], route.dst.prefixlen, 0, 0,
        table, route.protocol, _RT_SCOPE_NOWHERE, 0, 0,
    )  # fmt: skip
    body = head + u32(_RTA_TABLE, route.table) + u32(_RTA_OIF, index)
    body += attribute(_RTA_DST, route.dst.network_address.packed) if route.dst.prefixlen else b""
    body += u32(_RTA_PRIORITY, route.priority) if route.priority else b""
    return Message(RTM_DELROUTE, 0, body, f"delete route {route.dst} dev {route.link}")


def list_routes(version: int, protocol: int = 0, link: int = 0) -> Message:
    """Ask for all routes of one address family, 4 or 6 (a dump).

    protocol: for those with that mark; link: for those through the link of that index.
    """
    head = _RTMSG.pack(FAMILY[version], 0, 0, 0, 0, protocol, 0, 0, 0)
    body = head + u32(_RTA_OIF, link) if link else head
    return Message(RTM_GETROUTE, 0, body, f"list IPv{version} routes")


def mark_of(message: Message) -> int:
    """The protocol of an RTM_NEWROUTE answer, without decoding the rest."""
    return message.body[_AT_PROTOCOL]


def parse_route(message: Message) -> list[tuple[int, Route]]:
    """(link index, route) for each next hop of an RTM_NEWROUTE answer.

    Empty for what is no unicast route, and no local one of podwire's; several where the kernel made
    one multipath route of routes that differ in their next hop alone, as it does with IPv6.
    """
    kind, route, found = _parse(message)
    if kind != _RTN_UNICAST and not route.local:
        return []
    if _RTA_OIF in found:
        return [(number(found[_RTA_OIF]), route)]
    return [(i, replace(route, via=via)) for i, via in _next_hops(found.get(_RTA_MULTIPATH, b""))]


def is_unicast(message: Message) -> bool:
    """Whether a route's packets are sent on, by whatever hop."""
    return bool(_RTMSG.unpack_from(message.body)[7] == _RTN_UNICAST)


def _parse(message: Message) -> tuple[int, Route, dict[int, bytes]]:
    """The kind (0: a cached route), the route without its link, and the attributes."""
    family, length, _, _, table, protocol, scope, kind, flags = _RTMSG.unpack_from(message.body)
    found = attributes(message.body, _RTMSG.size)
    metrics = attributes(found.get(_RTA_METRICS, b""))
    route = Route(
        dst=_destination(family, length, found),
        link="",
        via=_gateway(found),
        src=_ip(found.get(_RTA_PREFSRC)),
        scope=scope,
        table=number_in(found, _RTA_TABLE) or table or TABLE_MAIN,
        priority=number_in(found, _RTA_PRIORITY),
        mtu=number_in(metrics, _RTAX_MTU),
        advmss=number_in(metrics, _RTAX_ADVMSS),
        protocol=protocol,
        onlink=bool(flags & _RTNH_F_ONLINK),
        local=kind == _RTN_LOCAL and protocol == RTPROT_PODWIRE_PEERS,
    )
    return 0 if flags & _RTM_F_CLONED else kind, route, found


def parse_refusal(message: Message) -> tuple[int, IPNetwork] | None:
    """The table and the destination of a route that lets nothing pass; None for any other.

    After a `throw` the next rule decides.
    """
    kind, route, _found = _parse(message)
    return (route.table, route.dst) if kind in _REFUSALS - {_RTN_THROW} else None


def _next_hops(data: bytes) -> Iterator[tuple[int, IPAddress | None]]:
    """(link index, gateway) of each struct rtnexthop in an RTA_MULTIPATH attribute."""
    offset = 0
    while offset + _NEXT_HOP.size <= len(data):
        length, index = _NEXT_HOP.unpack_from(data, offset)
        if length < _NEXT_HOP.size:
            return
        found = attributes(data[offset : offset + length], _NEXT_HOP.size)
        yield index, _gateway(found)
        offset += length + (-length % 4)


def parse_named_route(message: Message, names: Mapping[int, str]) -> Route | None:
    """A route of an RTM_NEWROUTE or RTM_DELROUTE with its link's name, from names by index.

    One that is not one entry (several next hops, or none) has an empty link name, and so equals
    no desired route. None for what the kernel keeps for itself (local, broadcast, cached routes).
    """
    hops = parse_route(message)
    if len(hops) == 1:
        index, route = hops[0]
        route = replace(route, link=names.get(index, ""))
    else:
        kind, route, _found = _parse(message)
        if kind not in {_RTN_UNICAST, *_REFUSALS}:
            return None
    usual = route.dst.version == 6 and route.priority == _IPV6_PRIORITY
    return replace(route, priority=0) if usual else route


def list_local_routes(version: int, index: int) -> Message:
    """Ask for the routes that make one link's addresses of a family the node's own (a dump)."""
    head = _RTMSG.pack(FAMILY[version], 0, 0, 0, TABLE_LOCAL, 0, 0, _RTN_LOCAL, 0)
    return Message(RTM_GETROUTE, 0, head + u32(_RTA_OIF, index), "list local routes")


def parse_destination(message: Message) -> IPAddress | None:
    """The address that an RTM_NEWROUTE answer leads to; None for the default route."""
    return _ip(attributes(message.body, _RTMSG.size).get(_RTA_DST))


def get_route(address: IPAddress, source: IPAddress | None = None, iif: int = 0) -> Message:
    """Ask which route a packet to the address would take.

    source: None where the kernel chooses it; iif: the index of the link that it comes in by, 0 for
    one that the node itself sends.
    """
    length = address.max_prefixlen
    # IPv6 names the table in any case, and refuses the flag.
    flags = _RTM_F_LOOKUP_TABLE if address.version == 4 else 0
    source_length = length if source else 0
    head = _RTMSG.pack(FAMILY[address.version], length, source_length, 0, 0, 0, 0, 0, flags)
    body = head + attribute(_RTA_DST, address.packed)
    body += attribute(_RTA_SRC, source.packed) if source else b""
    body += u32(_RTA_IIF, iif) if iif else b""
    return Message(RTM_GETROUTE, 0, body, ("look up the route to", address))


def parse_path(message: Message) -> tuple[int, IPAddress | None, int]:
    """The link index (0: none), the next hop and the table of a route look-up's answer."""
    found = attributes(message.body, _RTMSG.size)
    return number_in(found, _RTA_OIF), _gateway(found), number_in(found, _RTA_TABLE)


def is_local(message: Message) -> bool:
    """Whether a route look-up's answer is that the address is the node's own."""
    return bool(_RTMSG.unpack_from(message.body)[7] == _RTN_LOCAL)


def parse_link_index(message: Message) -> int:
    """The link index of a route look-up's answer; 0 where it has none."""
    found = attributes(message.body, _RTMSG.size)
    return number_in(found, _RTA_OIF)


def _gateway(found: Mapping[int, bytes]) -> IPAddress | None:
    """The next hop, which may be of the other family (RFC 8950)."""
    other = found.get(_RTA_VIA)
    return _ip(other[_VIA_ADDRESS:]) if other else _ip(found.get(_RTA_GATEWAY))


def _ip(raw: bytes | None) -> IPAddress | None:
    return ip_address(raw) if raw else None


def _destination(family: int, length: int, found: Mapping[int, bytes]) -> IPNetwork:
    raw = found.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
    return ip_network((raw, length))
