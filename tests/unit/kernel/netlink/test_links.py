"""Our link and address messages as pyroute2 reads them, and its as we read them."""

import socket
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # type: ignore[import-untyped]
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]

from kernel.model import Address, Link, Port, Sysctl
from kernel.netlink import codec, links
from tests.unit.kernel import strategies as nouns
from tests.unit.kernel.netlink.pyroute2_codec import (
    CREATE,
    EXCLUSIVE,
    FAMILY,
    INDEXES,
    REQUEST,
    decode,
    encode,
    members,
    without_none,
)


@given(nouns.links, nouns.links, st.integers(0, 2**31 - 1), st.just(0) | INDEXES)
def test_create_veth(host: Link, peer: Link, fd: int, master: int) -> None:
    found = decode(ifinfmsg, links.create_veth(host, peer, fd, master))
    assert found["header"]["type"] == links.RTM_NEWLINK
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
def test_traits_of_a_link(link: Link) -> None:
    found = decode(ifinfmsg, links.set_traits(link))
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


def test_settings_that_a_message_carries() -> None:
    carried = (
        Sysctl("net/ipv4/conf/a.b/forwarding", "1"),
        Sysctl("net/ipv6/conf/a.b/addr_gen_mode", "0"),
    )
    others = (
        Sysctl("net/ipv6/conf/a.b/forwarding", "1"),
        Sysctl("net/ipv6/conf/a.b/disable_ipv6", "0"),
    )
    assert [links.carries(s) for s in (*carried, *others)] == [True, True, False, False]
    link = Link("a.b")
    message = links.set_traits(link, settings=(*others, *carried))
    assert message.body == links.set_traits(link, settings=carried).body
    assert links.set_traits(link, settings=others).body == links.set_traits(link).body
    families = members(members(decode(ifinfmsg, message))["IFLA_AF_SPEC"])
    assert members(families["AF_INET6"]) == {"IFLA_INET6_ADDR_GEN_MODE": 0}


@given(nouns.names, nouns.macs, st.sampled_from((1, 0x100, 0x101)))
def test_changes_of_a_link(name: str, mac: str, flags: int) -> None:
    found = decode(ifinfmsg, links.set_flags(name, flags))
    assert (found["flags"], found["change"]) == (flags, flags)
    assert members(found) == {"IFLA_IFNAME": name}
    up = decode(ifinfmsg, links.set_up(name))
    assert (up["flags"], up["change"]) == (1, 1)
    changed = decode(ifinfmsg, links.set_mac(name, mac))
    assert (changed["flags"], changed["change"]) == (0, 0)
    assert members(changed) == {"IFLA_IFNAME": name, "IFLA_ADDRESS": mac}
    queue = decode(ifinfmsg, links.set_queue_length(name, flags))
    assert members(queue) == {"IFLA_IFNAME": name, "IFLA_TXQLEN": flags}
    gone = decode(ifinfmsg, links.delete_link(name))
    assert gone["header"]["type"] == links.RTM_DELLINK
    assert members(gone) == {"IFLA_IFNAME": name}


@given(nouns.names, INDEXES)
def test_questions_about_links(name: str, index: int) -> None:
    mask = {"IFLA_EXT_MASK": 8}
    by_name = decode(ifinfmsg, links.get_link(name))
    assert (by_name["header"]["type"], by_name["index"]) == (links.RTM_GETLINK, 0)
    assert members(by_name) == {"IFLA_IFNAME": name, **mask}
    by_index = decode(ifinfmsg, links.get_link(index=index))
    assert (by_index["index"], members(by_index)) == (index, mask)
    assert members(decode(ifinfmsg, links.list_links())) == mask


@given(nouns.links, INDEXES, INDEXES)
def test_a_link_as_the_kernel_reports_it(link: Link, index: int, master: int) -> None:
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
        IFLA_TXQLEN=link.queue_length,
    )
    attrs |= {"IFLA_LINKINFO": {"attrs": info}}
    attrs |= {"IFLA_MASTER": master} if link.port else {}
    state = link.up * 1 | link.promisc * 0x100 | (not link.arp) * 0x80 | 0x1000
    message = encode(
        ifinfmsg,
        index=index,
        flags=state | (link.allmulti or False) * 0x200,
        attrs=list(attrs.items()),
    )
    port = link.port and Port(str(master), link.port.hairpin, link.port.isolated)
    wanted = replace(link, port=port, index=index)
    assert links.parse_link(message) == wanted


@given(nouns.addresses, INDEXES, st.booleans())
def test_addresses(address: Address, index: int, remove: bool) -> None:
    ip = address.address
    build = links.delete_address if remove else links.add_address
    found = decode(ifaddrmsg, build(address, index))
    assert found["header"]["type"] == (links.RTM_DELADDR if remove else links.RTM_NEWADDR)
    assert found["header"]["flags"] == (REQUEST if remove else REQUEST | CREATE | EXCLUSIVE)
    assert (found["family"], found["index"]) == (FAMILY[ip.version], index)
    assert (found["prefixlen"], found["scope"]) == (ip.network.prefixlen, 0)
    attrs = members(found)
    flags = attrs.pop("IFA_FLAGS")
    assert bool(flags & 0x02) == (ip.version == 6 and not address.dad)  # IFA_F_NODAD
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
def test_an_address_as_the_kernel_reports_it(address: Address, index: int, local: bool) -> None:
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
    assert links.parse_address(message) == (index, Address("", ip))


def test_addresses_are_listed_of_one_link_or_of_all() -> None:
    for index in (0, 7):
        found = decode(ifaddrmsg, links.list_addresses(index))
        assert (found["family"], found["index"], members(found)) == (0, index, {})


@given(nouns.names, nouns.mtus, st.integers(1, 2**32 - 1))
def test_one_trait_at_a_time(name: str, mtu: int, group: int) -> None:
    cleared = decode(ifinfmsg, links.clear_flags(name, 0x80))
    assert (cleared["flags"], cleared["change"]) == (0, 0x80)
    for message, attribute in (
        (links.set_mtu(name, mtu), {"IFLA_MTU": mtu}),
        (links.set_master(name, 0), {"IFLA_MASTER": 0}),
        (links.set_group(name, group), {"IFLA_GROUP": group}),
    ):
        found = decode(ifinfmsg, message)
        assert found["header"]["type"] == links.RTM_NEWLINK
        assert members(found) == {"IFLA_IFNAME": name, **attribute}
    gone = decode(ifinfmsg, links.delete_group(group))
    assert gone["header"]["type"] == links.RTM_DELLINK
    assert members(gone) == {"IFLA_GROUP": group}


def test_addresses_are_announced_when_the_link_comes_up() -> None:
    message = links.set_arp_notify("eth0")
    assert (message.type, message.flags) == (links.RTM_NEWLINK, 0)
    spec = codec.attributes(message.body, 16)[26]  # IFLA_AF_SPEC
    conf = codec.attributes(codec.attributes(spec)[socket.AF_INET])[1]  # IFLA_INET_CONF
    assert codec.number(codec.attributes(conf)[22]) == 1  # IPV4_DEVCONF_ARP_NOTIFY


@pytest.mark.parametrize(
    ("state", "works"), [("UNKNOWN", True), ("DOWN", False), ("DORMANT", False), ("UP", True)]
)
def test_whether_a_link_can_send_and_receive(state: str, works: bool) -> None:
    found = encode(ifinfmsg, index=7, attrs=[("IFLA_OPERSTATE", state)])
    assert links.parse_operational(found) == (7, works)


def test_a_link_without_state_works() -> None:
    assert links.parse_operational(encode(ifinfmsg, index=7)) == (7, True)


@given(INDEXES, INDEXES)
def test_the_ends_of_a_pair(index: int, peer: int) -> None:
    found = encode(ifinfmsg, index=index, attrs=[("IFLA_LINK", peer)])
    assert links.parse_pair(found) == (index, peer)
    assert links.parse_peer_index(found) == peer
    assert links.parse_pair(encode(ifinfmsg, index=index)) == (index, 0)


@pytest.mark.parametrize(
    ("flags", "tentative"),
    [(0x40, True), (0xC0, True), (0x48, False), (0x08, False), (0x80, False)],
)
def test_an_address_under_duplicate_detection_is_tentative(flags: int, tentative: bool) -> None:
    found = encode(
        ifaddrmsg,
        family=socket.AF_INET6,
        attrs=[("IFA_ADDRESS", "fd00::1"), ("IFA_FLAGS", flags)],
    )
    assert links.is_tentative(found) == tentative


@pytest.mark.parametrize(("flags", "failed"), [(0x48, True), (0x08, True), (0x40, False)])
def test_an_address_that_failed_its_detection(flags: int, failed: bool) -> None:
    found = encode(ifaddrmsg, family=10, prefixlen=64, attrs=[("IFA_FLAGS", flags)])
    assert links.is_duplicate(found) == failed


def test_an_address_without_flags_is_not_tentative() -> None:
    found = encode(ifaddrmsg, family=socket.AF_INET, attrs=[("IFA_ADDRESS", "10.0.0.1")])
    assert not links.is_tentative(found)
