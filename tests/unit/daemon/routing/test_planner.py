"""Plans: the entries of each back end, and what is refused, kept or tolerated."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from daemon.model import Desired, Node, Snapshot
from daemon.routing.backends.vxlan import vtep_hop, vtep_mac
from daemon.routing.host_state import HostState, Unplannable
from daemon.routing.original_sysctls import NOTED
from daemon.routing.planner import Planner
from daemon.routing.sysctls import device_sysctls
from kernel.model import (
    RTPROT_PODWIRE,
    RTPROT_PODWIRE_PEERS,
    Address,
    Entry,
    FdbEntry,
    Link,
    Neighbour,
    Port,
    Route,
    Vxlan,
)
from tests.unit.daemon.clusters import cluster, host_state, node, planned, route, settings

DEVICE = "podwire-vxlan"
NOT_ALLOWED = "of this node, which `allowOverlap` does not name"
ETH1 = Link("eth1", kind="", mtu=1500)
DUAL_1 = node("node-1", "192.0.2.1 2001:db8::1", "10.244.1.0/24 fd00:0:1::/64")
DUAL_2 = node("node-2", "192.0.2.2 2001:db8::2", "10.244.2.0/24 fd00:0:2::/64")
DUAL_HOST = host_state("192.0.2.1/24", "2001:db8::1/64")


def plan(text: str, snapshot: Snapshot, found: HostState | None = None) -> Desired:
    """A plan from nothing."""
    return planned(Planner(settings(text)), snapshot, found or host_state())


def refusals(desired: Desired) -> list[str]:
    return [str(refusal) for refusal in desired.refused]


def tunnel(prefix: str, peer: str) -> tuple[Entry, Entry]:
    """Neighbour and route through the overlay."""
    net, mac = ip_network(prefix), vtep_mac(ip_address(peer))
    hop, v4 = vtep_hop(net, mac), net.version == 4
    way = Route(net, DEVICE, via=hop, protocol=RTPROT_PODWIRE_PEERS, onlink=v4)
    return Neighbour(DEVICE, hop, mac), way


def fdb(peer: str) -> FdbEntry:
    return FdbEntry(DEVICE, vtep_mac(ip_address(peer)), ip_address(peer))


def direct(prefix: str, via: str, link: str = "eth0") -> Route:
    return Route(ip_network(prefix), link, via=ip_address(via), protocol=RTPROT_PODWIRE_PEERS)


# -- back ends


def test_vxlan() -> None:
    desired = plan("", cluster(DUAL_1, DUAL_2), DUAL_HOST)
    assert desired.device == Link(
        DEVICE, "vxlan", vtep_mac(ip_address("192.0.2.1")), 1450,
        alias="podwire: to the pods of other nodes",
        vxlan=Vxlan(1, 8472, ip_address("192.0.2.1"), "eth0"),
    )  # fmt: skip
    assert desired.device_addresses == (
        Address(DEVICE, ip_interface("10.244.1.0/32")),
        Address(DEVICE, ip_interface("fd00:0:1::/128")),
    )
    assert desired.peers == {
        "node-2": (
            fdb("192.0.2.2"),
            *tunnel("10.244.2.0/24", "192.0.2.2"),
            *tunnel("fd00:0:2::/64", "192.0.2.2"),
        )
    }
    assert (desired.pod_mtu, desired.uplink, desired.underlay) == (
        1450, "eth0", ip_address("192.0.2.1"),
    )  # fmt: skip
    assert desired.refused == desired.tolerated == ()
    assert desired.pod_cidrs == DUAL_1.pod_cidrs


def test_next_hops_are_the_prefix_or_the_device() -> None:
    assert vtep_hop(ip_network("10.244.2.0/24"), "02:11:22:33:44:55") == ip_address("10.244.2.0")
    # RFC 4291 appendix A: the universal/local bit is inverted.
    hop = vtep_hop(ip_network("fd00:0:2::/64"), "02:11:22:33:44:55")
    assert hop == ip_address("fe80::11:22ff:fe33:4455")


def test_several_ipv6_prefixes_have_one_neighbour() -> None:
    many = node("node-2", "192.0.2.2", "fd00:0:2::/64 fd00:0:3::/64")
    entries = plan("", cluster(DUAL_1, many), DUAL_HOST).peers["node-2"]
    kinds = [type(entry) for entry in entries]
    assert (kinds.count(FdbEntry), kinds.count(Neighbour), kinds.count(Route)) == (1, 1, 2)


def test_vxlan_over_ipv6_with_the_settings_of_the_file() -> None:
    text = "underlay: ipv6\nvxlan: {vni: 7, port: 4789, device: overlay}"
    desired = plan(text, cluster(DUAL_1, DUAL_2), DUAL_HOST)
    assert desired.device is not None
    assert desired.device.vxlan == Vxlan(7, 4789, ip_address("2001:db8::1"), "eth0")
    assert (desired.device.name, desired.device.mtu) == ("overlay", 1430)
    assert desired.peers["node-2"][0] == FdbEntry(
        "overlay", vtep_mac(ip_address("2001:db8::2")), ip_address("2001:db8::2")
    )


def test_the_order_of_addresses_decides_nothing() -> None:
    swapped = replace(DUAL_1, addresses=DUAL_1.addresses[::-1])
    assert plan("", cluster(swapped, DUAL_2), DUAL_HOST).underlay == ip_address("192.0.2.1")
    assert plan("", cluster(swapped, DUAL_2), DUAL_HOST).refused == ()
    only = node("node-1", "2001:db8::1", "10.244.1.0/24")
    here = host_state("2001:db8::1/64")
    three = node("three", "2001:db8::3", "10.244.3.0/24")
    alone = plan("", cluster(only, three), here)
    assert (alone.underlay, alone.refused) == (ip_address("2001:db8::1"), ())


def test_nodes_that_encapsulate_in_different_families_name_the_key_that_unites_them() -> None:
    six = node("six", "2001:db8::6", "10.244.6.0/24")
    assert refusals(plan("", cluster(DUAL_1, six), DUAL_HOST)) == [
        "10.244.6.0/24 of six: the node encapsulates in IPv6, and this node in IPv4: "
        "set `underlay: ipv6` on all nodes"
    ]
    # The other end refuses it, too.
    me = node("node-1", "2001:db8::1", "10.244.1.0/24")
    seen = plan("", cluster(me, DUAL_2), host_state("2001:db8::1/64"))
    assert refusals(seen)[0].endswith("this node in IPv6: set `underlay: ipv6` on all nodes")
    both = plan("underlay: ipv6", cluster(DUAL_1, six), DUAL_HOST)
    assert (both.refused, both.peers["six"][0]) == ((), fdb("2001:db8::6"))


def test_host_gw() -> None:
    desired = plan("backend: host-gw", cluster(DUAL_1, DUAL_2), DUAL_HOST)
    assert desired.peers["node-2"] == (
        direct("10.244.2.0/24", "192.0.2.2"),
        direct("fd00:0:2::/64", "2001:db8::2"),
    )
    assert desired.device is None
    assert desired.device_addresses == ()
    assert desired.pod_mtu == 1500


def test_host_gw_takes_the_link_that_the_peer_is_on() -> None:
    found = host_state(links=(ETH1,), more=[("eth1", "198.51.100.1/24")])
    peers = cluster(node(1), node("two", "198.51.100.2", "10.9.0.0/24"))
    desired = plan("backend: host-gw", peers, found)
    assert desired.peers["two"] == (direct("10.9.0.0/24", "198.51.100.2", "eth1"),)


def test_host_gw_refuses_who_is_behind_a_router_or_has_no_address_of_the_family() -> None:
    far = node("far", "203.0.113.9", "10.244.9.0/24 fd00:0:9::/64")
    desired = plan("backend: host-gw", cluster(DUAL_1, DUAL_2, far), DUAL_HOST)
    assert refusals(desired) == [
        "10.244.9.0/24 of far: 203.0.113.9 is not on-link: "
        "host-gw needs a common link, vxlan and hybrid do not",
        "fd00:0:9::/64 of far: the node has no IPv6 address",
    ]
    assert desired.peers["far"] == ()
    assert len(desired.peers["node-2"]) == 2


@pytest.mark.parametrize("router", ["192.0.2.254", "fe80::1"])
def test_a_more_specific_route_through_a_router_is_not_on_link(router: str) -> None:
    found = host_state(routes=(route("192.0.2.2/32", "eth0", router),))
    assert plan("backend: host-gw", cluster(node(1), node(2)), found).peers["node-2"] == ()
    hybrid = plan("backend: hybrid", cluster(node(1), node(2)), found).peers["node-2"]
    assert hybrid == (fdb("192.0.2.2"), *tunnel("10.244.2.0/24", "192.0.2.2"))


def test_hybrid_encapsulates_only_what_is_not_on_link() -> None:
    far = node("far", "203.0.113.9", "10.244.9.0/24")
    desired = plan("backend: hybrid", cluster(node(1), node(2), far))
    assert desired.peers == {
        "node-2": (direct("10.244.2.0/24", "192.0.2.2"),),
        "far": (fdb("203.0.113.9"), *tunnel("10.244.9.0/24", "203.0.113.9")),
    }
    assert desired.device is not None
    assert desired.pod_mtu == 1450


def test_hybrid_carries_the_family_that_the_peers_have_no_address_of() -> None:
    peers = [node(f"node-{n}", f"192.0.2.{n}", f"10.244.{n}.0/24 fd00:0:{n}::/64") for n in (1, 2)]
    desired = plan("backend: hybrid", cluster(*peers))
    assert desired.peers["node-2"] == (
        fdb("192.0.2.2"),
        direct("10.244.2.0/24", "192.0.2.2"),
        *tunnel("fd00:0:2::/64", "192.0.2.2"),
    )


def test_none() -> None:
    desired = plan("backend: none", cluster(node(1), node(2)))
    assert desired.peers == {"node-2": ()}
    assert desired.device is None
    assert desired.pod_cidrs == (ip_network("10.244.1.0/24"),)


@pytest.mark.parametrize("backend", ["vxlan", "hybrid"])
def test_a_peer_without_an_address_of_the_underlays_family_is_refused(backend: str) -> None:
    v6 = node("six", "2001:db8::6", "10.244.6.0/24")
    desired = plan(f"backend: {backend}", cluster(node(1), node(2), v6))
    assert refusals(desired) == ["10.244.6.0/24 of six: the node has no IPv4 address"]
    assert desired.peers["six"] == ()
    assert desired.peers["node-2"] != ()


def test_families_that_this_node_has_no_part_in_are_left_out_silently() -> None:
    desired = plan("", cluster(node(1), DUAL_2))
    assert desired.peers["node-2"] == (fdb("192.0.2.2"), *tunnel("10.244.2.0/24", "192.0.2.2"))
    assert desired.refused == ()


def test_macs_are_one_interfaces_and_follow_from_the_address_alone() -> None:
    assert vtep_mac(ip_address("192.0.2.1")) == "1a:fa:ad:bb:57:32"  # every release must agree
    macs = {vtep_mac(ip_address(n)) for n in range(2000)}
    assert len(macs) == 2000
    assert {int(mac[:2], 16) & 3 for mac in macs} == {2}


# -- this node


def test_a_source_without_this_node_plans_nothing() -> None:
    with pytest.raises(Unplannable, match="the source has no node node-1, which is this one"):
        plan("", cluster(node(2)))


def test_the_uplink_cannot_be_the_vxlan_device() -> None:
    chosen, alone = settings("vxlan: {device: eth0}"), cluster(node(1))
    with pytest.raises(
        Unplannable, match=r"192\.0\.2\.1 is this node's address on eth0, which is the name of vxl"
    ):
        planned(Planner(chosen), alone, host_state())
    announced = host_state("198.51.100.1/24", more=[("lo", "192.0.2.1/32")])
    with pytest.raises(Unplannable, match=r"packets from 192\.0\.2\.1 leave by eth0, which is"):
        planned(Planner(chosen), alone, announced)


def test_an_address_that_no_link_has_plans_nothing_and_the_planner_goes_on_afterwards() -> None:
    planner, snapshot = Planner(settings()), cluster(node(1), node(2))
    first = planned(planner, snapshot, host_state())
    with pytest.raises(Unplannable, match=r"no link of this node has its address 192\.0\.2\.1"):
        planned(planner, snapshot, host_state("198.51.100.1/24"))
    assert planned(planner, snapshot, host_state()).peers["node-2"] is first.peers["node-2"]


def test_an_underlay_that_this_node_has_no_address_of() -> None:
    with pytest.raises(Unplannable, match="node-1 has no IPv6 address, which `underlay` asks for"):
        plan("underlay: ipv6", cluster(node(1)))


def test_an_address_on_the_loopback_link_leaves_by_the_default_route() -> None:
    found = host_state("198.51.100.7/24", more=[("lo", "192.0.2.1/32")])
    desired = plan("", cluster(node(1), node(2)), found)
    assert desired.uplink == "eth0"
    assert desired.device is not None
    assert desired.device.vxlan is not None
    assert desired.device.vxlan.local == ip_address("192.0.2.1")


def test_the_mtu_of_the_settings_wins_up_to_what_the_uplink_takes() -> None:
    assert plan("mtu: 1400", cluster(node(1))).pod_mtu == 1400
    assert plan("mtu: 1450", cluster(node(1))).pod_mtu == 1450
    with pytest.raises(Unplannable, match="mtu 1451 is more than the uplink takes: eth0 has 1500"):
        plan("mtu: 1451", cluster(node(1)))
    assert plan("mtu: 1500\nbackend: host-gw", cluster(node(1))).pod_mtu == 1500


def test_an_mtu_too_small_for_ipv6_costs_ipv6_alone() -> None:
    desired = plan("mtu: 1279", cluster(DUAL_1, DUAL_2), DUAL_HOST)
    assert desired.pod_mtu == 1279
    assert [str(prefix) for prefix in desired.pod_cidrs] == ["10.244.1.0/24"]
    [refusal] = desired.refused
    assert (refusal.node, refusal.prefix.version) == ("node-1", 6)
    assert refusal.why == "IPv6 pods need an MTU of 1280 (RFC 8200), and have 1279: eth0 has 1500"
    assert desired.peers["node-2"] == (fdb("192.0.2.2"), *tunnel("10.244.2.0/24", "192.0.2.2"))
    assert not [a for a in desired.device_addresses if a.address.version == 6]
    assert not [s for s in desired.sysctls if s.required and "ipv6" in s.path]
    assert plan("mtu: 1279", cluster(node(1))).pod_mtu == 1279


@pytest.mark.parametrize(
    ("uplink", "backend", "pods"),
    [(9000, "vxlan", 8950), (65536, "host-gw", 65535), (65536, "vxlan", 65485), (117, "vxlan", 0)],
)
def test_the_mtu_follows_the_uplinks(uplink: int, backend: str, pods: int) -> None:
    found = host_state()
    links = tuple(replace(k, mtu=uplink) if k.name == "eth0" else k for k in found.links)
    try:
        mtu = plan(f"backend: {backend}", cluster(node(1)), replace(found, links=links)).pod_mtu
    except Unplannable:
        mtu = 0
    assert mtu == pods


def test_an_address_on_the_loopback_link_too_leaves_by_the_other() -> None:
    found = host_state("192.0.2.1/24", more=[("lo", "192.0.2.1/32")])
    reverse = replace(found, addresses=found.addresses[::-1], routes=())
    assert plan("", cluster(node(1)), reverse).uplink == "eth0"


def test_settings_that_outlast_the_device_can_be_set_back() -> None:
    for desired in (
        plan("backend: host-gw", cluster(node(1))),
        plan("", cluster(DUAL_1), DUAL_HOST),
    ):
        lasting = set(desired.sysctls).difference(device_sysctls(desired))
        assert lasting
        assert [s.path for s in lasting if not NOTED.fullmatch(s.path)] == []


def test_sysctls_of_the_families_in_use() -> None:
    def paths(desired: Desired) -> set[str]:
        return {f"{s.path}={s.value}" for s in desired.sysctls if s.required}

    assert paths(plan("backend: host-gw", cluster(node(1)))) == {
        "net/ipv4/ip_forward=1",
        "net/ipv4/conf/eth0/forwarding=1",
    }
    assert paths(plan("", cluster(DUAL_1), DUAL_HOST)) == {
        "net/ipv4/ip_forward=1",
        "net/ipv4/conf/eth0/forwarding=1",
        f"net/ipv4/conf/{DEVICE}/forwarding=1",
        "net/ipv6/conf/all/forwarding=1",
        f"net/ipv6/conf/{DEVICE}/disable_ipv6=0",
    }
    # A node that has an address of a family, and no pods of it, is made no router.
    one = node("node-1", "192.0.2.1 2001:db8::1", "10.244.1.0/24")
    assert paths(plan("backend: host-gw", cluster(one), DUAL_HOST)) == {
        "net/ipv4/ip_forward=1",
        "net/ipv4/conf/eth0/forwarding=1",
    }
    one = node("node-1", "192.0.2.1 2001:db8::1", "fd00:10:244:1::/64")
    assert paths(plan("", cluster(one), DUAL_HOST)) == {
        "net/ipv6/conf/all/forwarding=1",
        f"net/ipv6/conf/{DEVICE}/disable_ipv6=0",
    }


def test_the_clusters_addresses_are_merged_in_order() -> None:
    peers = [node(n) for n in (1, 2, 3, 5)]
    desired = plan("", cluster(*peers, cidrs="10.244.8.0/24 fd00::/48"))
    assert [str(block) for block in desired.cluster] == [
        "10.244.1.0-10.244.3.255", "10.244.5.0/24", "10.244.8.0/24", "fd00::/48",
    ]  # fmt: skip


@pytest.mark.parametrize("backend", ["vxlan", "host-gw", "hybrid", "none"])
def test_this_nodes_prefixes_are_the_clusters(backend: str) -> None:
    """Whatever names the cluster's prefixes: packets between two that are keep their address."""
    desired = plan(f"backend: {backend}", cluster(node(1), cidrs="10.250.0.0/16"))
    assert [str(block) for block in desired.cluster] == ["10.244.1.0/24", "10.250.0.0/16"]


# -- conflicts between nodes


def test_two_nodes_claiming_one_prefix_the_first_by_name_has_it() -> None:
    same = node("node-9", "192.0.2.9", "10.244.2.0/24 10.244.9.0/24")
    desired = plan("", cluster(node(1), same, node(2)))
    assert refusals(desired) == [
        "10.244.2.0/24 of node-9: overlaps 10.244.2.0/24 of node-2, which keeps it"
    ]
    assert [r.other for r in desired.refused] == ["node-2"]
    assert desired.peers["node-9"] == (fdb("192.0.2.9"), *tunnel("10.244.9.0/24", "192.0.2.9"))
    assert desired.peers["node-2"] == (fdb("192.0.2.2"), *tunnel("10.244.2.0/24", "192.0.2.2"))


def test_who_has_a_prefix_keeps_it_and_the_other_gets_it_when_the_node_leaves() -> None:
    planner, late = Planner(settings()), node("early", "192.0.2.9", "10.244.2.0/23")
    before = planned(planner, cluster(node(1), node(2)), host_state())
    both = planned(planner, cluster(node(1), late, node(2)), host_state())
    assert both.peers["node-2"] is before.peers["node-2"]
    assert both.peers["early"] == ()
    only = planned(planner, cluster(node("node-1", "192.0.2.1", "10.9.0.0/24"), late), host_state())
    assert only.peers == {"early": (fdb("192.0.2.9"), *tunnel("10.244.2.0/23", "192.0.2.9"))}
    assert only.refused == ()


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_a_new_daemon_keeps_the_prefix_with_whom_the_kernel_says_has_it(backend: str) -> None:
    text = f"backend: {backend}"
    planner, late = Planner(settings(text)), node("early", "192.0.2.9", "10.244.2.0/23")
    planned(planner, cluster(node(1), node(2)), host_state())
    both = planned(planner, cluster(node(1), late, node(2)), host_state())
    found = [entry for entries in both.peers.values() for entry in entries]
    again = planned(Planner(settings(text)), cluster(node(1), late, node(2)), host_state(), found)
    assert again == both
    assert plan(text, cluster(node(1), late, node(2))).peers["early"] != ()


def test_own_prefixes_always_win_here() -> None:
    planner = Planner(settings())
    wide = node("a", "192.0.2.9", "10.244.0.0/16")
    assert planned(
        planner, cluster(node("node-1", "192.0.2.1", "10.9.0.0/24"), wide), host_state()
    ).peers["a"]
    desired = planned(planner, cluster(node(1), wide), host_state())
    assert refusals(desired) == [
        "10.244.0.0/16 of a: overlaps 10.244.1.0/24 of node-1, which keeps it"
    ]
    assert desired.peers["a"] == ()
    assert desired.pod_cidrs == (ip_network("10.244.1.0/24"),)


def test_a_peer_with_this_nodes_own_address_is_refused() -> None:
    desired = plan("", cluster(node(1), node(2), node("a", "192.0.2.1", "10.9.0.0/24")))
    assert refusals(desired) == ["10.9.0.0/24 of a: its address 192.0.2.1 is that of node-1 too"]
    assert [r.other for r in desired.refused] == ["node-1"]
    assert desired.peers["a"] == ()
    assert desired.peers["node-2"] != ()


def test_a_peer_with_another_address_of_this_node_is_refused() -> None:
    found = host_state(more=[("eth1", "198.51.100.1/24")], links=(ETH1,))
    desired = plan("", cluster(node(1), node("a", "198.51.100.1", "10.9.0.0/24")), found)
    assert refusals(desired) == ["10.9.0.0/24 of a: its address 198.51.100.1 is on this node"]


def test_two_nodes_with_one_address_the_holder_keeps_it() -> None:
    planner, twin = Planner(settings()), node("a", "192.0.2.2", "10.9.0.0/24")
    planned(planner, cluster(node(1), node(2)), host_state())
    desired = planned(planner, cluster(node(1), node(2), twin), host_state())
    assert refusals(desired) == ["10.9.0.0/24 of a: its address 192.0.2.2 is that of node-2 too"]
    assert desired.peers["node-2"] != ()
    freed = planned(planner, cluster(node(1), twin), host_state())
    assert freed.peers["a"] == (fdb("192.0.2.2"), *tunnel("10.9.0.0/24", "192.0.2.2"))
    assert freed.refused == ()


def test_a_node_refused_for_its_address_claims_no_prefix_against_others() -> None:
    bad = node("a", "192.0.2.1", "10.244.2.0/24")
    desired = plan("", cluster(node(1), node(2), bad))
    assert desired.peers["node-2"] != ()
    assert [r.node for r in desired.refused] == ["a"]


def test_a_node_that_moves_to_another_address() -> None:
    planner = Planner(settings())
    planned(planner, cluster(node(1), node(2), node(3)), host_state())
    moved = node("node-2", "192.0.2.77", "10.244.2.0/24")
    desired = planned(planner, cluster(node(1), moved, node(3)), host_state())
    assert desired.peers["node-2"] == (fdb("192.0.2.77"), *tunnel("10.244.2.0/24", "192.0.2.77"))
    assert desired.refused == ()


def test_two_nodes_that_swap_addresses_or_prefixes() -> None:
    planner = Planner(settings())
    planned(planner, cluster(node(1), node(2), node(3)), host_state())
    two, three = (
        node("node-2", "192.0.2.3", "10.244.3.0/24"),
        node("node-3", "192.0.2.2", "10.244.2.0/24"),
    )
    desired = planned(planner, cluster(node(1), two, three), host_state())
    assert desired.refused == ()
    assert desired.peers["node-2"] == (fdb("192.0.2.3"), *tunnel("10.244.3.0/24", "192.0.2.3"))
    assert desired.peers["node-3"] == (fdb("192.0.2.2"), *tunnel("10.244.2.0/24", "192.0.2.2"))


# -- conflicts with networks of this node


def test_story_24_a_prefix_that_overlaps_a_network_of_the_node_is_refused_and_named() -> None:
    found = host_state(links=(Link("docker0", kind="bridge"),), more=[("docker0", "10.244.2.1/16")])
    desired = plan("", cluster(node(1), node(2), node("b", "192.0.2.9", "10.9.0.0/24")), found)
    assert refusals(desired) == [
        f"10.244.1.0/24 of node-1: overlaps 10.244.0.0/16 on docker0 {NOT_ALLOWED}",
        f"10.244.2.0/24 of node-2: overlaps 10.244.0.0/16 on docker0 {NOT_ALLOWED}",
    ]
    assert desired.pod_cidrs == ()
    assert desired.device_addresses == ()
    assert desired.peers["b"] != ()


@pytest.mark.parametrize(
    "more",
    [
        {"routes": (route("10.244.2.0/24", "eth0", "192.0.2.254"),)},
        {"routes": (route("10.244.2.128/25", "eth0"),)},
        {"more": [("eth0", "10.244.0.9/16")]},
        {"more": [("eth0", "10.244.2.9/32")]},
    ],
)
def test_routes_and_single_addresses_count_as_networks(more: dict[str, object]) -> None:
    snapshot = cluster(node("node-1", "192.0.2.1", "10.9.0.0/24"), node(2))
    desired = plan("", snapshot, host_state(**more))
    assert [str(r.prefix) for r in desired.refused] == ["10.244.2.0/24"]
    assert f"on eth0 {NOT_ALLOWED}" in desired.refused[0].why
    assert plan("allowOverlap: [10.244.0.0/16]", snapshot, host_state(**more)).refused == ()


def test_allow_overlap_lets_only_what_it_covers() -> None:
    found = host_state(more=[("eth0", "10.0.0.9/8")])
    snapshot = cluster(node(1), node(2))
    assert len(plan("allowOverlap: [10.244.0.0/16]", snapshot, found).refused) == 2
    assert plan("allowOverlap: [10.0.0.0/8]", snapshot, found).refused == ()


@pytest.mark.parametrize("wider", ["0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/8", "10.244.0.0/16"])
@pytest.mark.parametrize("link", ["tun0", ""])
def test_a_wider_route_of_others_overlaps_nothing(wider: str, link: str) -> None:
    found = host_state(routes=(route(wider, link, "192.0.2.9"),))
    assert plan("", cluster(node(1), node(2)), found).refused == ()


def test_what_podwire_made_is_no_network_of_the_node() -> None:
    links = (
        Link("pw0123456789a", alias="podwire net=podwire id=1 if=eth0 ip=10.244.1.5/24"),
        Link("pw1123456789a", alias="podwire net=podwire id=2", port=Port("br-pods")),
        Link("br-pods", kind="bridge"),
        Link(DEVICE, kind="vxlan", alias="podwire: to the pods of other nodes"),
    )
    more = [
        ("pw0123456789a", "10.244.1.1/32"),
        ("br-pods", "10.244.1.1/24"),
        (DEVICE, "10.244.1.0/32"),
    ]
    routes = (
        route("10.244.1.5/32", "pw0123456789a", protocol=RTPROT_PODWIRE),
        route("10.244.2.0/24", DEVICE, "10.244.2.0", protocol=RTPROT_PODWIRE_PEERS),
        route("10.244.2.0/24", "eth0", "192.0.2.2", protocol=RTPROT_PODWIRE_PEERS),
    )
    desired = plan("", cluster(node(1), node(2)), host_state(links=links, more=more, routes=routes))
    assert desired.refused == desired.tolerated == ()


def test_the_bridge_of_the_conflist_is_podwires_even_without_pods() -> None:
    found = host_state(links=(Link("cni0", kind="bridge"),), more=[("cni0", "10.244.1.1/24")])
    assert plan("conflist: {mode: bridge}", cluster(node(1)), found).refused == ()
    assert len(plan("", cluster(node(1)), found).refused) == 1


def test_a_network_that_comes_later_does_not_take_down_what_is_in_use() -> None:
    planner, snapshot = Planner(settings()), cluster(node(1), node(2))
    first = planned(planner, snapshot, host_state())
    found = host_state(
        more=[("tun0", "10.0.0.9/8")],
        routes=(route("10.244.1.5/32", "pw0123456789a", protocol=RTPROT_PODWIRE),),
    )
    later = planned(planner, cluster(node(1), node(2), node(3)), found)
    assert later.peers["node-2"] is first.peers["node-2"]
    assert later.pod_cidrs == (ip_network("10.244.1.0/24"),)
    assert [str(r) for r in later.tolerated] == [
        f"10.244.1.0/24 of node-1: overlaps 10.0.0.0/8 on tun0 {NOT_ALLOWED}",
        f"10.244.2.0/24 of node-2: overlaps 10.0.0.0/8 on tun0 {NOT_ALLOWED}",
    ]
    assert [r.node for r in later.refused] == ["node-3"]
    entries = [entry for own in later.peers.values() for entry in own]
    again = planned(Planner(settings()), cluster(node(1), node(2), node(3)), found, entries)
    assert again == later


# -- what did not change


def test_only_what_changed_is_new() -> None:
    planner = Planner(settings())
    nodes = [node(n) for n in range(1, 60)]
    first = planned(planner, cluster(*nodes), host_state())
    nodes[30] = node("node-31", "192.0.2.200", "10.244.31.0/24")
    copies = [Node(n.name, n.addresses, n.pod_cidrs) for n in nodes]  # equal, not the same
    second = planned(planner, cluster(*copies), host_state())
    changed = {n for n in second.peers if second.peers[n] is not first.peers[n]}
    assert changed == {"node-31"}
    moved = replace(host_state(), links=(*host_state().links, Link("eth9", kind="")))
    assert planned(planner, cluster(*copies), moved) == second


def test_facts_that_change_nothing_for_a_peer_keep_its_entries() -> None:
    planner = Planner(settings())
    first = planned(planner, cluster(node(1), node(2)), host_state())
    second = planned(
        planner, cluster(node(1), node(2)), host_state(more=[("eth0", "198.51.100.1/24")])
    )
    assert second.peers["node-2"] is first.peers["node-2"]


def test_nodes_that_left_leave_nothing() -> None:
    planner = Planner(settings())
    planned(
        planner, cluster(node(1), node(2), node("b", "192.0.2.9", "10.244.2.0/24")), host_state()
    )
    desired = planned(planner, cluster(node(1)), host_state())
    assert desired.peers == {}
    assert desired.refused == ()
    assert [str(block) for block in desired.cluster] == ["10.244.1.0/24"]


def test_a_prefix_with_a_node_in_it_is_refused() -> None:
    inner = node("b", "198.51.100.9", "10.244.9.0/24")
    for name, cidr, why in (
        ("a", "198.51.100.0/24", "contains 198.51.100.9, an address of b"),
        ("a", "203.0.113.0/24", "contains 203.0.113.7, its own address"),
    ):
        outer = node(name, "203.0.113.7", f"{cidr} 10.244.8.0/24")
        planner = Planner(settings())
        desired = planned(planner, cluster(node(1), outer, inner), host_state())
        why_not = f"{cidr} of a: {why}: the path there would lead into itself"
        assert refusals(desired) == [why_not]
        assert {n: len(e) for n, e in desired.peers.items()} == {"a": 3, "b": 3}
        gone = planned(planner, cluster(node(1), node("a", "192.0.2.9", cidr)), host_state())
        assert gone.refused == ()


def test_who_comes_with_an_address_in_a_prefix_that_another_has_is_refused() -> None:
    planner, outer = Planner(settings()), node("a", "203.0.113.7", "198.51.100.0/24")
    kept = planned(planner, cluster(node(1), outer), host_state()).peers["a"]
    late = [node("b", "198.51.100.9", "10.244.9.0/24"), node("c", "10.244.1.9", "10.244.8.0/24")]
    desired = planned(planner, cluster(node(1), outer, *late), host_state())
    assert refusals(desired) == [
        "10.244.9.0/24 of b: its address 198.51.100.9 is in 198.51.100.0/24 of a",
        "10.244.8.0/24 of c: its address 10.244.1.9 is in 10.244.1.0/24 of node-1",
    ]
    assert [r.other for r in desired.refused] == ["a", "node-1"]
    assert desired.peers["a"] is kept
    assert planned(planner, cluster(node(1), *late), host_state()).peers["b"] != ()


def test_a_hole_in_a_peers_prefix_refuses_it_and_one_around_it_does_not() -> None:
    holes = [route(dst, "") for dst in ("10.0.0.0/8", "10.244.2.0/25", "10.244.1.0/24")]
    desired = plan("", cluster(node(1), node(2), node(3)), host_state(routes=holes))
    assert refusals(desired) == [
        f"10.244.2.0/24 of node-2: overlaps 10.244.2.0/25 through no link {NOT_ALLOWED}"
    ]
    assert desired.pod_cidrs == (ip_network("10.244.1.0/24"),)
    assert not plan(
        "allowOverlap: [10.244.2.0/25]", cluster(node(1), node(2)), host_state(routes=holes)
    ).refused


def test_a_tolerated_prefix_that_was_lost_does_not_come_back_over_the_network() -> None:
    planner = Planner(settings())
    before, two = node("node-1", "192.0.2.1", "10.9.0.0/24"), node(2)
    planned(planner, cluster(before, two), host_state())
    pods = route("10.244.2.5/32", "pw0123456789a", protocol=RTPROT_PODWIRE)
    found = host_state(more=[("tun0", "10.244.0.9/16")], routes=(pods,))
    kept = planned(planner, cluster(before, two), found)
    assert [r.node for r in kept.tolerated] == ["node-2"]
    mine = planned(planner, cluster(node("node-1", "192.0.2.1", "10.244.2.0/24"), two), found)
    assert (mine.pod_cidrs, mine.peers["node-2"]) == ((ip_network("10.244.2.0/24"),), ())
    after = planned(planner, cluster(before, two), found)
    assert refusals(after) == [
        f"10.244.2.0/24 of node-2: overlaps 10.244.0.0/16 on tun0 {NOT_ALLOWED}"
    ]
    assert (after.peers["node-2"], after.tolerated) == ((), ())


def test_host_gw_gives_the_node_its_source_addresses() -> None:
    planner = Planner(settings("backend: host-gw"))
    first = planned(planner, cluster(node(1), node(2)), host_state()).own_routes
    assert [str(e.dst) for e in first if isinstance(e, Route)] == ["10.244.1.0/32"]
    moved = node("node-1", "192.0.2.1", "10.244.9.0/24")
    later = planned(planner, cluster(moved, node(3)), host_state()).own_routes
    assert [str(e.dst) for e in later if isinstance(e, Route)] == ["10.244.9.0/32"]
