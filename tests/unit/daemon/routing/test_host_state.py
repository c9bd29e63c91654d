"""Host state: what is read from a kernel, which events may change a plan, and what plans see."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from daemon.prefix_set import block_of
from daemon.routing.host_state import (
    HostState,
    UnderlayPaths,
    Unplannable,
    affects_plan,
    read_host_state,
    view_host,
)
from kernel.model import (
    RTPROT_PODWIRE,
    RTPROT_PODWIRE_PEERS,
    FdbEntry,
    IPAddress,
    Link,
    Port,
    Route,
)
from kernel.netlink.monitor import Event, Kind, Noun
from kernel.netlink.socket import Netlink
from kernel.paths import PacketPath
from tests.unit.cni_plugin import namespaces
from tests.unit.daemon.clusters import UPLINK, host_state, node, route, settings

MADE = """\
link add d0 type bridge
link add pw0123456789a type veth peer name x
link set pw0123456789a alias podwire
link set pw0123456789a master d0
link set d0 up
link set x up
link set pw0123456789a up
addr add 192.0.2.1/24 dev d0
route add 10.1.0.0/16 via 192.0.2.9
route add blackhole 10.2.0.0/16
route add 10.3.0.0/16 via 192.0.2.9 proto 113
route add 10.4.0.0/16 via 192.0.2.9 proto 112
route add 10.5.0.0/16 via 192.0.2.9 table 100
route add unreachable fd00:1::/64
nexthop add id 7 dev x
route add 10.6.0.0/16 nhid 7
route add 10.7.0.0/16 via inet6 fe80::1 dev d0
"""


def test_links_addresses_and_routes_of_the_main_table_are_read() -> None:
    with namespaces.elsewhere(), Netlink() as nl:
        subprocess.run(["ip", "-batch", "-"], input=MADE, text=True, check=True)
        host = read_host_state(nl)
        Path("/proc/sys/net/ipv4/nexthop_compat_mode").write_text("0")
        bare = read_host_state(nl)
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
        "10.6.0.0/16": ("x", boot),
        "10.7.0.0/16": ("d0", boot),
        "fd00:1::/64": ("", boot),
    }
    bare_route = next(r for r in bare.routes if str(r.dst) == "10.6.0.0/16")
    assert bare_route.link == "a nexthop object"


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
    first, second = (view_host(settings(), node(1), host_state(), {}, ()) for _ in range(2))
    assert first == second
    more = host_state(more=[("eth0", "198.51.100.1/24")])
    assert view_host(settings(), node(1), more, {}, ()) != first


def test_own_addresses_are_those_of_links_and_those_to_come() -> None:
    to_come = ip_address("10.244.1.0")
    host = host_state(more=[("podwire-vxlan", "10.77.0.1/32"), ("eth0", "198.51.100.1/24")])
    view = view_host(settings(), node(1), host, {}, [to_come])
    assert view.local == {ip_address("192.0.2.1"), ip_address("198.51.100.1"), to_come}


UNDERLAY = """\
link add eth0 type veth peer name x0
link add eth1 type veth peer name x1
link add br0 type bridge
link set lo up
link set x0 up
link set x1 up
link set br0 up
link set eth0 up
link set eth1 mtu 1400 up
addr add 192.0.2.1/32 dev br0
addr add 192.0.2.1/32 dev lo
addr add 203.0.113.1/24 dev eth0
route add default dev lo
route add 192.0.2.0/24 dev eth0
route add 192.0.2.3/32 via inet6 fe80::3 dev eth0
route add 192.0.2.4/32 dev eth1
route add 192.0.2.5/32 dev eth1 table 52
route add prohibit 192.0.2.6/32
route add 192.0.2.7/32 via 203.0.113.9
nexthop add id 7 via 203.0.113.9 dev eth0
route add 192.0.2.8/32 nhid 7
rule add pref 9 to 192.0.2.5 lookup 52
"""


def test_paths_to_other_nodes_are_the_kernels() -> None:
    nodes = [node(n) for n in range(1, 10)]
    with namespaces.elsewhere(), Netlink() as nl:
        subprocess.run(["ip", "-batch", "-"], input=UNDERLAY, text=True, check=True)
        underlay = UnderlayPaths()
        paths, host = underlay.read(nl, nodes, "node-1"), read_host_state(nl)
        assert underlay.read(nl, nodes, "node-1") is paths
        underlay.expire()
        assert underlay.read(nl, nodes, "node-1") is paths
        subprocess.run(["ip", "route", "del", "192.0.2.7/32"], check=True)
        assert underlay.read(nl, nodes[:-1], "node-1") == {
            a: p for a, p in paths.items() if a != ip_address("192.0.2.9")
        }
        underlay.expire()
        assert str(underlay.read(nl, nodes, "node-1")[ip_address("192.0.2.7")]) == "dev eth0"
    assert {str(a): str(path) for a, path in paths.items()} == {
        "192.0.2.2": "dev eth0",
        "192.0.2.3": "via fe80::3 dev eth0",
        "192.0.2.4": "dev eth1",
        "192.0.2.5": "dev eth1 by rule 9: from all to 192.0.2.5/32 lookup 52",
        "192.0.2.6": "nowhere (Permission denied)",
        "192.0.2.7": "via 203.0.113.9 dev eth0",
        "192.0.2.8": "via 203.0.113.9 dev eth0",
        "192.0.2.9": "dev eth0",
    }
    view = view_host(settings(), node(1), host, paths, ())
    assert {int(str(a)[-1]): link for a, link in view.on_link.items()} == {
        2: "eth0", 4: "eth1", 5: "eth1", 9: "eth0",
    }  # fmt: skip
    # Not the bridge without ports that has the address, nor the default route's link.
    assert (view.uplink, view.mtu) == ("eth0", 1500)


def path_by(*links: str) -> dict[IPAddress, PacketPath]:
    return {ip_address(f"192.0.2.{n}"): PacketPath(link) for n, link in enumerate(links, 2)}


@pytest.mark.parametrize(
    ("links", "uplink"),
    [
        (("eth1", "eth1", "eth0"), "eth0"),  # the link of the address serves
        (("eth1", "eth1", "eth2"), "eth1"),
        (("eth1", "eth2", ""), "eth2"),
        (("podwire-vxlan", "podwire-vxlan", "eth1"), "eth1"),
        (("", "lo"), "eth0"),  # no node is reached yet
        ((), "eth0"),
    ],
)
def test_the_uplink_is_the_link_that_leads_to_other_nodes(
    links: tuple[str, ...], uplink: str
) -> None:
    host = host_state(links=[Link(name, mtu=1400) for name in ("eth1", "eth2")])
    assert view_host(settings(), node(1), host, path_by(*links), ()).uplink == uplink


def test_paths_of_the_other_family_do_not_decide() -> None:
    host = host_state(links=[Link("eth1", mtu=1400)])
    paths = {ip_address("2001:db8::2"): PacketPath("eth1")}
    assert view_host(settings(), node(1), host, paths, ()).uplink == "eth0"


def test_packets_to_other_nodes_cannot_leave_by_podwires_own_link() -> None:
    with pytest.raises(Unplannable, match=r"leave by podwire-vxlan, which is podwire's own"):
        view_host(settings(), node(1), host_state(), path_by("podwire-vxlan"), ())


def test_prefixes_of_pods_count_as_in_use_by_their_addresses_and_routes() -> None:
    me = node("node-1", "192.0.2.1", "10.244.1.0/24 10.244.2.0/24 10.244.3.0/24")
    routes = (route("10.244.1.5/32", "pw0123456789a", protocol=RTPROT_PODWIRE),)
    links = (replace(POD_LINK, alias="podwire: a pod"),)
    pod = ("pw0123456789a", "10.244.2.1/32")
    host = host_state(routes=routes, links=links, more=[pod, ("eth0", "10.244.0.1/16")])
    view = view_host(settings(), me, host, {}, ())
    assert view.in_use == {block_of(p) for p in me.pod_cidrs[:2]}
    # Without a network in their way there is no need to know.
    assert view_host(settings(), me, host_state(routes=routes), {}, ()).in_use == frozenset()


def test_the_lowest_metric_of_default_routes_names_the_uplink_of_a_routed_host() -> None:
    links = (Link("eth1", kind="", mtu=9000, index=3),)
    routes = (
        Route(ip_network("0.0.0.0/0"), "eth1", via=ip_address("198.51.100.9"), priority=5),
        Route(ip_network("::/0"), "eth2", via=ip_address("fe80::1")),
    )
    host = host_state("198.51.100.1/24", more=[("lo", "192.0.2.1/32")], links=links, routes=routes)
    view = view_host(settings(), node(1), host, {}, ())
    assert (view.uplink, view.mtu) == ("eth0", 1500)
    later = tuple(replace(r, priority=9) if r.dst.prefixlen == 0 else r for r in host.routes[:3])
    view = view_host(settings(), node(1), replace(host, routes=(*later, *routes)), {}, ())
    assert (view.uplink, view.mtu) == ("eth1", 9000)
    bare = replace(host, routes=())
    with pytest.raises(Unplannable, match=r"no link leads from this node's address 192\.0\.2\.1"):
        view_host(settings(), node(1), bare, {}, ())


def test_an_address_that_no_link_has_is_named() -> None:
    with pytest.raises(Unplannable, match=r"no link of this node has its address 192\.0\.2\.1"):
        view_host(settings(), node(1), HostState(), {}, ())
    v4 = settings("underlay: ipv6")
    with pytest.raises(Unplannable, match=r"has no IPv6 address, which `underlay` asks for"):
        view_host(v4, node(1), host_state(), {}, ())


def test_a_network_is_named_with_its_link() -> None:
    routes = [route("10.9.7.0/25", "tun0"), route("10.9.8.0/24", ""), route("10.9.8.0/24", "tun1")]
    host = host_state(more=[("eth0", "10.244.0.1/16")], routes=[*routes, route("10.9.9.0/30", "")])
    view = view_host(settings(), node(1), host, {}, ())

    def overlapping(prefix: str, *, own: bool = False) -> str:
        return view.overlapping_network(block_of(ip_network(prefix)), own=own)

    assert overlapping("10.244.7.0/24") == "10.244.0.0/16 on eth0"
    assert overlapping("10.245.7.0/24") == overlapping("10.9.7.128/25") == ""
    assert overlapping("10.9.7.0/24") == overlapping("10.9.7.0/25") == "10.9.7.0/25 on tun0"
    assert overlapping("10.9.7.0/26") == ""  # more specific than the route
    assert overlapping("10.9.8.0/24", own=True) == "10.9.8.0/24 on tun1"
    assert overlapping("10.9.9.0/24") == "10.9.9.0/30 through no link"
    assert overlapping("10.9.9.0/24", own=True) == ""
