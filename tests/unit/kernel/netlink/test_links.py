"""Our rtnetlink messages as pyroute2 reads them, and pyroute2's as we read them."""

import socket
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]

from kernel.model import Address, IPAddress, Link, Port, Route
from kernel.netlink import codec as wire
from kernel.netlink import links as rtnl
from kernel.netlink.codec import Message
from tests.unit.kernel import strategies as nouns

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
INDEXES = st.integers(1, 2**31 - 1)
REQUEST = wire.NLM_F_REQUEST
CREATE, EXCLUSIVE = wire.NLM_F_CREATE, wire.NLM_F_EXCL


def decode(kind: Any, message: Message) -> Any:
    """The message as pyroute2 decodes it."""
    found = kind(wire.pack(message, 5))
    found.decode()
    assert found["header"]["length"] == 16 + len(message.body)
    return found


def encode(kind: Any, **fields: Any) -> Message:
    """A message that pyroute2 encoded, as we receive it."""
    made = kind()
    for key, value in fields.items():
        made[key] = value
    made.encode()
    [(_sequence, message)] = wire.unpack(bytes(made.data))
    return message


def members(found: Any) -> dict[str, Any]:
    """Attributes by name; none may be there twice."""
    pairs = [(attribute[0], attribute[1]) for attribute in found["attrs"]]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def without_none(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@given(nouns.links, nouns.links, st.integers(0, 2**31 - 1), st.just(0) | INDEXES)
def test_create_veth(host: Link, peer: Link, fd: int, master: int) -> None:
    found = decode(ifinfmsg, rtnl.create_veth(host, peer, fd, master))
    assert found["header"]["type"] == rtnl.RTM_NEWLINK
    assert found["header"]["flags"] == REQUEST | CREATE | EXCLUSIVE
    assert (found["index"], found["flags"], found["change"]) == (0, 0, 0)
    outer = members(found)
    info = members(outer.pop("IFLA_LINKINFO"))
    assert outer == without_none(
        IFLA_IFNAME=host.name,
        IFLA_ADDRESS=host.mac,
        IFLA_MTU=host.mtu,
        IFLA_MASTER=master or None,
    )
    assert info["IFLA_INFO_KIND"] == "veth"
    inner = members(info["IFLA_INFO_DATA"])["VETH_INFO_PEER"]
    assert (inner["index"], inner["flags"], inner["change"]) == (0, 0, 0)
    assert members(inner) == without_none(
        IFLA_IFNAME=peer.name,
        IFLA_ADDRESS=peer.mac,
        IFLA_MTU=peer.mtu,
        IFLA_NET_NS_FD=fd,
    )


@given(nouns.links)
def test_describe_link(link: Link) -> None:
    found = decode(ifinfmsg, rtnl.describe_link(link))
    assert found["header"]["flags"] == REQUEST
    outer = members(found)
    info = outer.pop("IFLA_LINKINFO", None)
    assert outer == without_none(IFLA_IFNAME=link.name, IFLA_IFALIAS=link.alias)
    assert (info is None) == (link.port is None)
    if link.port:
        assert members(info)["IFLA_INFO_SLAVE_KIND"] == "bridge"
        assert members(members(info)["IFLA_INFO_SLAVE_DATA"]) == {
            "IFLA_BRPORT_MODE": link.port.hairpin,
            "IFLA_BRPORT_ISOLATED": link.port.isolated,
        }


@given(nouns.names, nouns.macs, st.sampled_from((1, 0x100, 0x101)))
def test_changes_of_a_link(name: str, mac: str, flags: int) -> None:
    found = decode(ifinfmsg, rtnl.set_flags(name, flags))
    assert (found["flags"], found["change"]) == (flags, flags)
    assert members(found) == {"IFLA_IFNAME": name}
    up = decode(ifinfmsg, rtnl.set_up(name))
    assert (up["flags"], up["change"]) == (1, 1)
    changed = decode(ifinfmsg, rtnl.set_mac(name, mac))
    assert (changed["flags"], changed["change"]) == (0, 0)
    assert members(changed) == {"IFLA_IFNAME": name, "IFLA_ADDRESS": mac}
    gone = decode(ifinfmsg, rtnl.delete_link(name))
    assert gone["header"]["type"] == rtnl.RTM_DELLINK
    assert members(gone) == {"IFLA_IFNAME": name}


@given(nouns.names, INDEXES)
def test_questions_about_links(name: str, index: int) -> None:
    mask = {"IFLA_EXT_MASK": 8}
    by_name = decode(ifinfmsg, rtnl.get_link(name))
    assert (by_name["header"]["type"], by_name["index"]) == (rtnl.RTM_GETLINK, 0)
    assert members(by_name) == {"IFLA_IFNAME": name, **mask}
    by_index = decode(ifinfmsg, rtnl.get_link(index=index))
    assert (by_index["index"], members(by_index)) == (index, mask)
    assert members(decode(ifinfmsg, rtnl.list_links())) == mask


@given(nouns.links, INDEXES, INDEXES)
def test_a_link_as_the_kernel_tells_it(link: Link, index: int, master: int) -> None:
    info: list[Any] = [("IFLA_INFO_KIND", link.kind)] if link.kind else []
    if link.port:
        flags = [
            ("IFLA_BRPORT_MODE", int(link.port.hairpin)),
            ("IFLA_BRPORT_ISOLATED", int(link.port.isolated)),
        ]
        info += [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": flags})]
    attrs: dict[str, Any] = without_none(
        IFLA_IFNAME=link.name,
        IFLA_ADDRESS=link.mac,
        IFLA_MTU=link.mtu,
        IFLA_IFALIAS=link.alias,
    )
    attrs |= {"IFLA_LINKINFO": {"attrs": info}, "IFLA_TXQLEN": 1000}
    attrs |= {"IFLA_MASTER": master} if link.port else {}
    message = encode(
        ifinfmsg,
        index=index,
        flags=link.up * 1 | link.promisc * 0x100 | (not link.arp) * 0x80 | 0x1000,
        attrs=list(attrs.items()),
    )
    port = link.port and Port(str(master), link.port.hairpin, link.port.isolated)
    wanted = replace(link, port=port, index=index)
    assert rtnl.read_link(message) == wanted


@given(nouns.addresses, INDEXES, st.booleans())
def test_addresses(address: Address, index: int, remove: bool) -> None:
    ip = address.address
    build = rtnl.delete_address if remove else rtnl.add_address
    found = decode(ifaddrmsg, build(address, index))
    assert found["header"]["type"] == (rtnl.RTM_DELADDR if remove else rtnl.RTM_NEWADDR)
    assert found["header"]["flags"] == (REQUEST if remove else REQUEST | CREATE | EXCLUSIVE)
    assert (found["family"], found["index"]) == (FAMILY[ip.version], index)
    assert (found["prefixlen"], found["scope"]) == (ip.network.prefixlen, 0)
    attrs = members(found)
    flags = attrs.pop("IFA_FLAGS")
    assert bool(flags & 0x02) == (ip.version == 6)  # IFA_F_NODAD
    assert bool(flags & 0x200) == (not address.prefix_route)  # IFA_F_NOPREFIXROUTE
    assert flags & ~0x202 == 0
    # RFC 3021: a network of two addresses has no broadcast address.
    broadcast = ip.version == 4 and ip.network.prefixlen < 31
    assert {key: ip_address(value) for key, value in attrs.items()} == without_none(
        IFA_LOCAL=ip.ip,
        IFA_ADDRESS=ip.ip,
        IFA_BROADCAST=ip.network.broadcast_address if broadcast else None,
    )


@given(nouns.addresses, INDEXES, st.booleans())
def test_an_address_as_the_kernel_tells_it(address: Address, index: int, local: bool) -> None:
    """IPv6 has IFA_ADDRESS alone; on a link with a peer that attribute is the peer's address."""
    ip = address.address
    attrs = [("IFA_ADDRESS", str(ip.ip))]
    if local:
        peer = ip_address("192.0.2.9" if ip.version == 4 else "2001:db8::9")
        attrs = [("IFA_ADDRESS", str(peer)), ("IFA_LOCAL", str(ip.ip))]
    message = encode(
        ifaddrmsg,
        family=FAMILY[ip.version],
        prefixlen=ip.network.prefixlen,
        index=index,
        attrs=attrs,
    )
    assert rtnl.read_address(message) == (index, Address("", ip))


def ip_or_none(text: str | None) -> IPAddress | None:
    return ip_address(text) if text else None


@given(nouns.routes, INDEXES, st.booleans())
def test_routes(route: Route, index: int, exclusive: bool) -> None:
    found = decode(rtmsg, rtnl.add_route(route, index, exclusive=exclusive))
    assert found["header"]["type"] == rtnl.RTM_NEWROUTE
    assert found["header"]["flags"] == REQUEST | CREATE | (EXCLUSIVE if exclusive else 0)
    assert (found["family"], found["dst_len"]) == (FAMILY[route.dst.version], route.dst.prefixlen)
    assert (found["proto"], found["scope"], found["type"]) == (route.protocol, route.scope, 1)
    assert found["flags"] == 4 * route.onlink
    assert found["table"] == (route.table if route.table < 256 else 252)
    attrs = members(found)
    metrics = members(attrs.pop("RTA_METRICS")) if "RTA_METRICS" in attrs else {}
    wanted = without_none(RTAX_MTU=route.mtu or None, RTAX_ADVMSS=route.advmss or None)
    assert metrics == wanted
    numbers = {key: attrs.pop(key, None) for key in ("RTA_OIF", "RTA_TABLE", "RTA_PRIORITY")}
    assert list(numbers.values()) == [index, route.table, route.priority or None]
    assert {key: ip_address(value) for key, value in attrs.items()} == without_none(
        RTA_DST=route.dst.network_address if route.dst.prefixlen else None,
        RTA_GATEWAY=route.via,
        RTA_PREFSRC=route.src,
    )


def told(route: Route, index: int, **changes: Any) -> Message:
    """The route as the kernel would tell it."""
    attrs = without_none(
        RTA_TABLE=route.table,
        RTA_DST=str(route.dst.network_address) if route.dst.prefixlen else None,
        RTA_OIF=index,
        RTA_GATEWAY=str(route.via) if route.via else None,
        RTA_PREFSRC=str(route.src) if route.src else None,
        RTA_PRIORITY=route.priority or None,
    )
    metrics = [("RTAX_MTU", route.mtu), ("RTAX_ADVMSS", route.advmss)]
    attrs["RTA_METRICS"] = {"attrs": [pair for pair in metrics if pair[1]]}
    fields = {
        "family": FAMILY[route.dst.version],
        "dst_len": route.dst.prefixlen,
        "table": route.table if route.table < 256 else 252,
        "proto": route.protocol,
        "scope": route.scope,
        "type": 1,
        "flags": 4 * route.onlink,
        "attrs": list(attrs.items()),
    }
    return encode(rtmsg, **(fields | changes))


@given(nouns.routes, INDEXES)
def test_a_route_as_the_kernel_tells_it(route: Route, index: int) -> None:
    (found,) = rtnl.read_route(told(route, index))
    assert found[0] == index
    wanted = {slot: getattr(route, slot) for slot in Route.__slots__} | {"link": ""}
    assert {slot: getattr(found[1], slot) for slot in Route.__slots__} == wanted


@pytest.mark.parametrize(
    "changes",
    [{"type": 2}, {"type": 7}, {"flags": 0x200}, {"attrs": [("RTA_DST", "10.0.0.0")]}],
    ids=["local", "unreachable", "cloned", "no next hop"],
)
def test_what_is_no_route_through_one_link_is_passed_over(changes: dict[str, Any]) -> None:
    route = Route(ip_network("10.0.0.0/24"), "")
    assert rtnl.read_route(told(route, 3)) != []
    assert rtnl.read_route(told(route, 3, **changes)) == []


def test_a_multipath_route_is_one_route_for_each_next_hop() -> None:
    hops = [
        {"oif": index, "hops": 0, "flags": 0, "attrs": [("RTA_GATEWAY", gateway)]}
        for index, gateway in ((3, "10.0.0.1"), (7, "10.1.0.1"))
    ]
    message = told(Route(ip_network("0.0.0.0/0"), ""), 3, attrs=[("RTA_MULTIPATH", hops)])
    found = [(index, str(route.via)) for index, route in rtnl.read_route(message)]
    assert found == [(3, "10.0.0.1"), (7, "10.1.0.1")]


@given(nouns.ip_addresses, INDEXES)
def test_route_look_up(address: IPAddress, index: int) -> None:
    found = decode(rtmsg, rtnl.look_up_route(address))
    assert found["header"]["type"] == rtnl.RTM_GETROUTE
    assert (found["family"], found["dst_len"]) == (FAMILY[address.version], address.max_prefixlen)
    assert {key: ip_address(value) for key, value in members(found).items()} == {"RTA_DST": address}
    answer = Route(ip_interface(address).network, "")
    assert rtnl.route_link_index(told(answer, index)) == index
    assert rtnl.route_link_index(encode(rtmsg, attrs=[("RTA_TABLE", 254)])) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_dumps_name_their_family(version: int) -> None:
    routes = decode(rtmsg, rtnl.list_routes(version))
    assert (routes["family"], members(routes)) == (FAMILY[version], {})
    addresses = decode(ifaddrmsg, rtnl.list_addresses())
    assert (addresses["family"], addresses["index"], members(addresses)) == (0, 0, {})
