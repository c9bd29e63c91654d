"""Host state: what is read from a kernel, which events may change a plan, and what plans see."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from daemon.prefix_set import block_of
from daemon.routing.host_state import (
    HostState,
    Unplannable,
    affects_plan,
    read_host_state,
    view_host,
)
from kernel.model import (
    RTPROT_PODWIRE,
    RTPROT_PODWIRE_PEERS,
    FdbEntry,
    Link,
    Port,
    Route,
)
from kernel.netlink.monitor import Event, Kind, Noun
from kernel.netlink.socket import Netlink
from tests.unit.cni_plugin import namespaces
from tests.unit.daemon.clusters import UPLINK, host_state, node, route, settings

MADE = """\
link add d0 type bridge
link add pw0123456789a type veth peer name x
link set pw0123456789a alias podwire
link set pw0123456789a master d0
link set d0 up
addr add 192.0.2.1/24 dev d0
route add 10.1.0.0/16 via 192.0.2.9
route add blackhole 10.2.0.0/16
route add 10.3.0.0/16 via 192.0.2.9 proto 113
route add 10.4.0.0/16 via 192.0.2.9 proto 112
route add 10.5.0.0/16 via 192.0.2.9 table 100
route add unreachable fd00:1::/64
"""


def test_links_addresses_and_routes_of_the_main_table_are_read() -> None:
    with namespaces.elsewhere(), Netlink() as nl:
        subprocess.run(["ip", "-batch", "-"], input=MADE, text=True, check=True)
        host = read_host_state(nl)
    links = {link.name: link for link in host.links}
    assert set(links) == {"lo", "d0", "pw0123456789a", "x"}
    assert links["pw0123456789a"].port == Port("d0")
    assert links["pw0123456789a"].alias == "podwire"
    assert "192.0.2.1/24" in {str(a.address) for a in host.addresses if a.link == "d0"}
    made = {str(r.dst): (r.link, r.protocol) for r in host.routes if not r.dst.is_link_local}
    boot, kernel = 3, 2
    assert made == {
        "192.0.2.0/24": ("d0", kernel),
        "10.1.0.0/16": ("d0", boot),
        "10.2.0.0/16": ("", boot),
        "10.4.0.0/16": ("d0", RTPROT_PODWIRE),
        "fd00:1::/64": ("", boot),
    }


POD_LINK = Link("pw0123456789a", index=9)


@pytest.mark.parametrize(
    ("kind", "noun", "expected"),
    [
        ("route", route("10.9.0.0/24", "eth0"), True),
        ("route", route("10.9.0.0/24", "eth0", protocol=RTPROT_PODWIRE), False),
        ("route", route("10.9.0.0/24", "eth0", protocol=RTPROT_PODWIRE_PEERS), False),
        ("address", host_state().addresses[0], True),
        ("address", replace(host_state().addresses[0], link="pw0123456789a"), False),
        ("link", UPLINK, False),
        ("link", replace(UPLINK, port=Port("7")), False),
        ("link", replace(UPLINK, mtu=1400), True),
        ("link", Link("eth9", index=9), True),
        ("link", POD_LINK, False),
        ("link", replace(POD_LINK, name="pw0123456789ab"), True),
        ("fdb", FdbEntry("podwire-vxlan", "02:00:00:00:00:01", ip_address("192.0.2.2")), False),
    ],
)
def test_events_that_may_change_a_plan(kind: Kind, noun: Noun, expected: bool) -> None:
    assert affects_plan(Event(kind, False, noun, 1), host_state()) is expected


@pytest.mark.parametrize("noun", [UPLINK, POD_LINK])
def test_a_link_that_goes_changes_a_plan_unless_it_is_a_pods(noun: Link) -> None:
    assert affects_plan(Event("link", True, noun, 1), host_state()) is (noun is UPLINK)


def test_equal_host_states_give_equal_views() -> None:
    first, second = (view_host(settings(), node(1), host_state(), ()) for _ in range(2))
    assert first == second
    more = host_state(more=[("eth0", "198.51.100.1/24")])
    assert view_host(settings(), node(1), more, ()) != first


def test_own_addresses_are_those_of_links_and_those_to_come() -> None:
    to_come = ip_address("10.244.1.0")
    host = host_state(more=[("podwire-vxlan", "10.77.0.1/32"), ("eth0", "198.51.100.1/24")])
    view = view_host(settings(), node(1), host, [to_come])
    assert view.local == {ip_address("192.0.2.1"), ip_address("198.51.100.1"), to_come}


def test_the_most_specific_destination_decides_what_is_on_link() -> None:
    routes = (
        route("192.0.2.128/25", "eth0", "192.0.2.254"),
        route("198.51.100.0/24", "eth1"),
        route("203.0.113.0/24", "", priority=1),
        route("203.0.113.0/24", "eth1", priority=5),
        route("233.252.0.0/24", "lo"),
    )
    view = view_host(settings(), node(1), host_state(routes=routes), ())
    links = {
        address: view.link_to(ip_address(address))
        for address in ("192.0.2.9", "192.0.2.200", "198.51.100.7", "203.0.113.7", "233.252.0.1")
    }
    assert links == {
        "192.0.2.9": "eth0",
        "192.0.2.200": "",  # behind a router
        "198.51.100.7": "eth1",
        "203.0.113.7": "",  # the lower metric refuses
        "233.252.0.1": "",
    }
    assert view.link_to(ip_address("8.8.8.8")) == ""
    assert view.link_to(ip_address("2001:db8::9")) == ""


def test_prefixes_of_pods_count_as_in_use_by_their_addresses_and_routes() -> None:
    me = node("node-1", "192.0.2.1", "10.244.1.0/24 10.244.2.0/24 10.244.3.0/24")
    routes = (
        route("10.244.0.0/16", "eth0", "192.0.2.254"),
        route("10.244.1.5/32", "pw0123456789a", protocol=RTPROT_PODWIRE),
    )
    links = (replace(POD_LINK, alias="podwire: a pod"),)
    host = host_state(routes=routes, links=links, more=[("pw0123456789a", "10.244.2.1/32")])
    view = view_host(settings(), me, host, ())
    assert view.in_use == {block_of(p) for p in me.pod_cidrs[:2]}
    # Without a network in their way there is no need to know.
    assert view_host(settings(), me, host_state(routes=routes[1:]), ()).in_use == frozenset()


def test_the_lowest_metric_of_default_routes_names_the_uplink_of_a_routed_host() -> None:
    links = (Link("eth1", kind="", mtu=9000, index=3),)
    routes = (
        Route(ip_network("0.0.0.0/0"), "eth1", via=ip_address("198.51.100.9"), priority=5),
        Route(ip_network("::/0"), "eth2", via=ip_address("fe80::1")),
    )
    host = host_state("198.51.100.1/24", more=[("lo", "192.0.2.1/32")], links=links, routes=routes)
    view = view_host(settings(), node(1), host, ())
    assert (view.uplink, view.mtu) == ("eth0", 1500)
    later = tuple(replace(r, priority=9) if r.dst.prefixlen == 0 else r for r in host.routes[:3])
    view = view_host(settings(), node(1), replace(host, routes=(*later, *routes)), ())
    assert (view.uplink, view.mtu) == ("eth1", 9000)
    bare = replace(host, routes=())
    with pytest.raises(Unplannable, match=r"no link leads from this node's address 192\.0\.2\.1"):
        view_host(settings(), node(1), bare, ())


def test_an_address_that_no_link_has_is_named() -> None:
    with pytest.raises(Unplannable, match=r"no link of this node has its address 192\.0\.2\.1"):
        view_host(settings(), node(1), HostState(), ())
    v4 = settings("underlay: ipv6")
    with pytest.raises(Unplannable, match=r"has no IPv6 address, which `underlay` asks for"):
        view_host(v4, node(1), host_state(), ())


def test_a_network_is_named_with_its_link() -> None:
    host = host_state(more=[("eth0", "10.244.0.1/16")])
    view = view_host(settings(), node(1), host, ())
    inside = block_of(ip_network("10.244.7.0/24"))
    assert view.overlapping_network(inside) == "10.244.0.0/16 on eth0"
    assert view.overlapping_network(block_of(ip_network("10.245.7.0/24"))) == ""
