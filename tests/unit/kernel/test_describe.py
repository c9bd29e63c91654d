"""Differences, names and states as people read them."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from kernel.describe import describe, name_of, state_of
from kernel.diff import Change, Noun, compare, diff_space
from kernel.model import (
    Address,
    ChainRules,
    Element,
    FdbEntry,
    Link,
    Neighbour,
    Port,
    Redirect,
    Route,
    Space,
    Sysctl,
    TokenBucket,
    Vxlan,
)

ETH0 = Link("eth0", mac="02:00:00:00:00:01", mtu=1500, port=Port("cni0"))
DEFAULT = Route(ip_network("0.0.0.0/0"), "eth0", ip_address("10.0.0.1"))
ADDRESS = Address("eth0", ip_interface("10.0.0.2/24"))
FORWARD = Sysctl("net/ipv4/ip_forward", "1")
WANT = Space((ETH0,), (ADDRESS,), (DEFAULT,), (FORWARD,))


@pytest.mark.parametrize(
    ("have", "text"),
    [
        (replace(WANT, links=()), "link eth0 is missing in the pod"),
        (replace(WANT, links=(replace(ETH0, up=False),)), "link eth0 in the pod is down"),
        (
            replace(WANT, links=(replace(ETH0, mac="02:00:00:00:00:02"),)),
            "link eth0 in the pod has MAC 02:00:00:00:00:02, not 02:00:00:00:00:01",
        ),
        (
            replace(WANT, links=(replace(ETH0, mtu=9000),)),
            "link eth0 in the pod has MTU 9000, not 1500",
        ),
        (
            replace(WANT, links=(replace(ETH0, kind="dummy"),)),
            "link eth0 in the pod is a dummy, not a veth",
        ),
        (
            replace(WANT, links=(replace(ETH0, port=None),)),
            "link eth0 in the pod is not a port of bridge cni0",
        ),
        (
            replace(WANT, links=(replace(ETH0, port=Port("cni1")),)),
            "link eth0 in the pod has master cni1, not cni0",
        ),
        (
            replace(WANT, links=(replace(ETH0, port=Port("cni0", hairpin=True)),)),
            "link eth0 in the pod has hairpin on, not off",
        ),
        (replace(WANT, addresses=()), "address 10.0.0.2/24 is missing on eth0 in the pod"),
        (
            replace(WANT, routes=()),
            "route 0.0.0.0/0 via 10.0.0.1 dev eth0 is missing in the pod",
        ),
        (
            replace(WANT, routes=(replace(DEFAULT, via=None),)),
            "route 0.0.0.0/0 in the pod goes dev eth0, not via 10.0.0.1 dev eth0",
        ),
        (
            replace(WANT, links=(replace(ETH0, up=False, mtu=9000),)),
            "link eth0 in the pod is down and has MTU 9000, not 1500",
        ),
        (
            replace(WANT, links=(replace(ETH0, kind=""),)),
            "link eth0 in the pod is a physical device, not a veth",
        ),
        (
            replace(WANT, links=(replace(ETH0, port=Port("cni0", isolated=True)),)),
            "link eth0 in the pod has isolation on, not off",
        ),
        (replace(WANT, sysctls=()), "net/ipv4/ip_forward in the pod is missing, not 1"),
    ],
)
def test_each_difference_has_its_sentence(have: Space, text: str) -> None:
    assert [describe(change, "pod") for change in diff_space(WANT, have)] == [text]


TUNNEL = Vxlan(7, 4789, ip_address("192.0.2.1"), "eth0")
DEVICE = Link("vx", "vxlan", port=Port(""), vxlan=TUNNEL, arp=True)
PEER = Route(ip_network("10.2.0.0/24"), "vx", ip_address("10.2.0.0"), protocol=113, onlink=True)
NEIGHBOUR = Neighbour("vx", ip_address("10.2.0.0"), "02:00:00:00:00:02")
FDB = FdbEntry("vx", "02:00:00:00:00:02", ip_address("192.0.2.2"))
CHAIN = ChainRules("inet", "postrouting", ("a", "b"))
BUCKET, REDIRECT = TokenBucket("pw0", 10**6, 1562500, 125000), Redirect("pw0", "bwp0")
HAIRPIN = Element("inet", "hairpin4", b"cni0".ljust(16, b"\0") + bytes((10, 0, 0, 2)) * 2)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            compare(DEVICE, replace(DEVICE, vxlan=replace(TUNNEL, vni=8, learning=True))),
            "link vx has VNI 8, not 7 and has learning on, not off",
        ),
        (
            compare(DEVICE, replace(DEVICE, vxlan=replace(TUNNEL, udp_checksum=True))),
            "link vx has UDP checksums on, not off",
        ),
        (compare(DEVICE, replace(DEVICE, vxlan=None)), "link vx is bound to no local address"),
        (compare(DEVICE, replace(DEVICE, arp=False)), "link vx resolves no neighbours (NOARP)"),
        (
            compare(DEVICE, replace(DEVICE, port=Port("br0"))),
            "link vx has master br0, and should have none",
        ),
        (
            compare(replace(DEVICE, alias="ours"), DEVICE),
            "link vx has alias None, not ours",
        ),
        (compare(FORWARD, Sysctl(FORWARD.path, "0")), "net/ipv4/ip_forward is 0, not 1"),
        (Change(None, FORWARD), "sysctl net/ipv4/ip_forward 1 should not be there"),
        (Change(None, ADDRESS), "address 10.0.0.2/24 dev eth0 should not be there"),
        (Change(None, PEER), "route 10.2.0.0/24 via 10.2.0.0 dev vx should not be there"),
        (Change(PEER, None), "route 10.2.0.0/24 via 10.2.0.0 dev vx is missing"),
        (
            compare(replace(PEER, mtu=1400), PEER),
            "route 10.2.0.0/24 goes via 10.2.0.0 dev vx mtu 0, not via 10.2.0.0 dev vx mtu 1400",
        ),
        (
            Change(NEIGHBOUR, None),
            "neighbour 10.2.0.0 lladdr 02:00:00:00:00:02 dev vx is missing",
        ),
        (
            compare(NEIGHBOUR, replace(NEIGHBOUR, mac="02:00:00:00:00:03")),
            "neighbour 10.2.0.0 has MAC 02:00:00:00:00:03, not 02:00:00:00:00:02",
        ),
        (
            compare(FDB, replace(FDB, dst=ip_address("192.0.2.3"))),
            "fdb 02:00:00:00:00:02 has dst 192.0.2.3, not 192.0.2.2",
        ),
        (
            Change(HAIRPIN, None),
            "element hairpin4 cni0 . 10.0.0.2 . 10.0.0.2 of nft table inet podwire is missing",
        ),
        (
            Change(BUCKET, None),
            "qdisc tbf of link pw0 rate 8000000bit limit 125000 is missing",
        ),
        (
            compare(BUCKET, TokenBucket("pw0", 10**5, 1, 2)),
            "qdisc tbf of link pw0 has rate (bytes a second) 100000, not 1000000 "
            "and has burst (ticks of 64 ns) 1, not 1562500 and has limit (bytes) 2, not 125000",
        ),
        (Change(REDIRECT, None), "redirection of what link pw0 receives to bwp0 is missing"),
        (
            compare(REDIRECT, Redirect("pw0", "")),
            "redirection of what link pw0 receives goes to a link that is gone, not bwp0",
        ),
        (Change(CHAIN, None), "rules of nft table inet podwire are missing"),
        (
            compare(CHAIN, replace(CHAIN, digests=("a",))),
            "rules of nft table inet podwire are not podwire's",
        ),
        (
            Change(None, CHAIN),
            "nft chain postrouting of table inet podwire should not be there",
        ),
    ],
)
def test_differences_of_a_node(change: Change[Noun] | None, text: str) -> None:
    assert change is not None
    assert describe(change) == text


def test_the_namespace_is_named() -> None:
    assert describe(Change(None, ETH0), "pod").endswith(" should not be in the pod")
    assert describe(Change(ETH0, None), "node") == "link eth0 is missing in the node"


@pytest.mark.parametrize(
    ("noun", "name", "state"),
    [
        (ETH0, "link eth0", "veth mac 02:00:00:00:00:01 mtu 1500"),
        (
            replace(DEVICE, mac=None),
            "link vx",
            "vxlan id 7 port 4789 local 192.0.2.1 dev eth0",
        ),
        (ADDRESS, "address 10.0.0.2/24", "dev eth0"),
        (PEER, "route 10.2.0.0/24", "via 10.2.0.0 dev vx onlink proto 113"),
        (
            Route(PEER.dst, "lo", local=True, table=255, priority=5, protocol=12),
            "route 10.2.0.0/24",
            "local dev lo table 255 metric 5 proto bird",
        ),
        (
            Route(PEER.dst, "", protocol=4),
            "route 10.2.0.0/24",
            "several next hops or none, proto static",
        ),
        (NEIGHBOUR, "neighbour 10.2.0.0", "lladdr 02:00:00:00:00:02 dev vx"),
        (FDB, "fdb 02:00:00:00:00:02", "dst 192.0.2.2 dev vx"),
        (replace(FDB, more="port 1"), "fdb 02:00:00:00:00:02", "dst 192.0.2.2 dev vx port 1"),
        (FORWARD, "sysctl net/ipv4/ip_forward", "1"),
        (CHAIN, "nft chain postrouting of table inet podwire", ""),
        (BUCKET, "qdisc tbf of link pw0", "rate 8000000bit limit 125000"),
        (REDIRECT, "redirection of what link pw0 receives", "to bwp0"),
        (
            HAIRPIN,
            "element hairpin4 cni0 . 10.0.0.2 . 10.0.0.2 of nft table inet podwire",
            "",
        ),
    ],
)
def test_names_and_states(noun: Noun, name: str, state: str) -> None:
    assert (name_of(noun), state_of(noun)) == (name, state)


def test_nothing_has_no_state() -> None:
    assert state_of(None) == ""
