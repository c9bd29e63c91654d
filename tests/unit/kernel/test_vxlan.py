"""The VXLAN device: its messages as pyroute2 reads them, and what a real kernel makes of it."""

import errno
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]

from kernel.diff import Fault, compare
from kernel.errors import KernelError
from kernel.model import Address, Link, Port, Route, Vxlan
from kernel.netlink import links
from kernel.netlink.codec import Message
from kernel.netlink.socket import Netlink
from kernel.read import read_addresses
from kernel.vxlan import (
    Rivalry,
    _repair_messages,
    create_vxlan,
    ensure_vxlan,
    find_vxlan,
    needs_new_device,
    read_vxlan,
    remove_vxlan,
)
from tests.unit.cni_plugin.namespaces import elsewhere
from tests.unit.kernel import strategies as nouns
from tests.unit.kernel.netlink.pyroute2_codec import (
    CREATE,
    EXCLUSIVE,
    INDEXES,
    REQUEST,
    decode,
    encode,
    members,
    without_none,
)


@given(nouns.links, nouns.tunnels, INDEXES)
def test_create_vxlan(link: Link, vxlan: Vxlan, uplink: int) -> None:
    found = decode(ifinfmsg, create_vxlan(link, vxlan, uplink))
    assert found["header"]["flags"] == REQUEST | CREATE | EXCLUSIVE
    outer = members(found)
    info = members(outer.pop("IFLA_LINKINFO"))
    assert outer == without_none(IFLA_IFNAME=link.name, IFLA_ADDRESS=link.mac, IFLA_MTU=link.mtu)
    assert info["IFLA_INFO_KIND"] == "vxlan"
    data = members(info["IFLA_INFO_DATA"])
    local = "IFLA_VXLAN_LOCAL" if vxlan.local.version == 4 else "IFLA_VXLAN_LOCAL6"
    assert ip_address(data.pop(local)) == vxlan.local
    assert data == {
        "IFLA_VXLAN_ID": vxlan.vni,
        "IFLA_VXLAN_LINK": uplink,
        "IFLA_VXLAN_LEARNING": 0,
        "IFLA_VXLAN_UDP_CSUM": 0,
        "IFLA_VXLAN_PORT": vxlan.port,
    }


@given(nouns.tunnels, INDEXES, st.booleans(), st.booleans())
def test_a_vxlan_device_as_the_kernel_reports_it(
    vxlan: Vxlan, uplink: int, learns: bool, computes: bool
) -> None:
    local = "IFLA_VXLAN_LOCAL" if vxlan.local.version == 4 else "IFLA_VXLAN_LOCAL6"
    data = {
        "IFLA_VXLAN_ID": vxlan.vni,
        "IFLA_VXLAN_LINK": uplink,
        local: str(vxlan.local),
        "IFLA_VXLAN_LEARNING": int(learns),
        "IFLA_VXLAN_PORT": vxlan.port,
        "IFLA_VXLAN_UDP_CSUM": int(computes),
    }
    info = [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": list(data.items())})]
    found = read_vxlan(encode(ifinfmsg, attrs=[("IFLA_LINKINFO", {"attrs": info})]))
    assert found == Vxlan(vxlan.vni, vxlan.port, vxlan.local, str(uplink), learns, computes)


@pytest.mark.parametrize(
    "info",
    [
        [("IFLA_INFO_KIND", "bridge")],
        [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_VXLAN_PORT", 4789)]})],
        [
            ("IFLA_INFO_KIND", "vxlan"),
            ("IFLA_INFO_DATA", {"attrs": [("IFLA_VXLAN_LOCAL", "192.0.2.1")]}),
        ],
    ],
    ids=["another kind", "no address", "no port"],
)
def test_what_has_no_tunnel_of_ours(info: list[tuple[str, object]]) -> None:
    assert read_vxlan(encode(ifinfmsg, attrs=[("IFLA_LINKINFO", {"attrs": info})])) is None


def test_a_device_without_uplink() -> None:
    data = [("IFLA_VXLAN_ID", 7), ("IFLA_VXLAN_LOCAL", "192.0.2.1"), ("IFLA_VXLAN_PORT", 4789)]
    info = [("IFLA_INFO_KIND", "vxlan"), ("IFLA_INFO_DATA", {"attrs": data})]
    found = read_vxlan(encode(ifinfmsg, attrs=[("IFLA_LINKINFO", {"attrs": info})]))
    assert found == Vxlan(7, 4789, ip_address("192.0.2.1"), "")


TUNNEL = Vxlan(7, 4789, ip_address("192.0.2.1"), "eth0")
DEVICE = Link(
    "vx", "vxlan", "02:00:00:00:00:01", 1450, alias="ours", port=Port(""), vxlan=TUNNEL, arp=True
)


@pytest.mark.parametrize(
    ("changes", "new"),
    [
        ({"kind": "bridge"}, True),
        ({"vxlan": None}, True),
        ({"vxlan": replace(TUNNEL, vni=8)}, True),
        ({"vxlan": replace(TUNNEL, port=8472)}, True),
        ({"vxlan": replace(TUNNEL, local=ip_address("192.0.2.2"))}, True),
        ({"vxlan": replace(TUNNEL, uplink="eth1")}, True),
        ({"vxlan": replace(TUNNEL, learning=True)}, True),
        ({"vxlan": replace(TUNNEL, udp_checksum=True)}, True),
        ({"up": False, "mtu": 1400, "mac": "02:00:00:00:00:02", "alias": "x"}, False),
        ({"arp": False, "port": Port("cni0")}, False),
        ({"port": None}, False),
    ],
)
def test_only_another_tunnel_needs_another_device(changes: dict[str, object], new: bool) -> None:
    observed = replace(DEVICE, **changes)  # type: ignore[arg-type]
    assert needs_new_device(compare(DEVICE, observed)) == new


def test_a_missing_device_is_made() -> None:
    assert needs_new_device(compare(DEVICE, None))
    assert not needs_new_device(None)


USUAL = [links.set_traits(replace(DEVICE, port=None)), links.set_up("vx")]


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ({"up": False}, []),
        ({"alias": None}, []),
        ({"mtu": 1400}, [links.set_mtu("vx", 1450)]),
        ({"mac": "02:00:00:00:00:02"}, [links.set_mac("vx", "02:00:00:00:00:01")]),
        ({"arp": False}, [links.clear_flags("vx", links.IFF_NOARP)]),
        ({"port": Port("cni0")}, [links.set_master("vx", 0)]),
        (
            {"port": Port("cni0"), "arp": False, "mtu": 9000, "mac": None},
            [
                links.set_master("vx", 0),
                links.clear_flags("vx", links.IFF_NOARP),
                links.set_mtu("vx", 1450),
                links.set_mac("vx", "02:00:00:00:00:01"),
            ],
        ),
    ],
)
def test_each_trait_has_its_message(changes: dict[str, object], messages: list[Message]) -> None:
    change = compare(DEVICE, replace(DEVICE, **changes))  # type: ignore[arg-type]
    assert change is not None
    first, last = USUAL
    assert _repair_messages(DEVICE, change) == [first, *messages, last]


@pytest.fixture
def nl() -> Iterator[Netlink]:
    """A socket in a namespace with an uplink and a bridge."""
    with elsewhere():
        ip("link add eth0 type veth peer name peer0")
        ip("address add 192.0.2.1/24 dev eth0")
        ip("link set eth0 up")
        ip("link add br0 type bridge")
        with Netlink() as found:
            yield found


def ip(command: str) -> str:
    done = subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)
    return done.stdout


WANTED = replace(DEVICE, port=None, arp=None)
ADDRESSES = tuple(Address("vx", ip_interface(a)) for a in ("10.244.1.0/32", "fd00:1::/128"))


def addresses(nl: Netlink) -> set[str]:
    link = find_vxlan(nl, "vx")
    assert link is not None
    found = {a.address for a in read_addresses(nl, [link])}
    return {str(a) for a in found if not a.is_link_local}


def test_a_device_is_created_once(nl: Netlink) -> None:
    done = ensure_vxlan(nl, WANTED, ADDRESSES)
    [change] = done.changes
    assert (done.made, change.observed, change.noun.kind) == (True, None, "vxlan")  # type: ignore[union-attr]
    found = find_vxlan(nl, "vx")
    assert found is not None
    traits = replace(found, allmulti=None, queue_length=None)
    assert traits == replace(DEVICE, port=None, index=done.link.index)
    assert addresses(nl) == {str(a.address) for a in ADDRESSES}
    again = ensure_vxlan(nl, WANTED, ADDRESSES)
    assert (again.made, again.changes, again.link) == (False, (), done.link)


def test_another_tunnel_replaces_the_device(nl: Netlink) -> None:
    old = ensure_vxlan(nl, replace(WANTED, vxlan=replace(TUNNEL, vni=8)), ADDRESSES).link
    done = ensure_vxlan(nl, WANTED, ADDRESSES)
    assert done.made
    assert [change.faults for change in done.changes] == [(Fault("vni", 7, 8),)]
    assert done.link.index != old.index
    assert addresses(nl) == {str(a.address) for a in ADDRESSES}


def test_traits_are_repaired_in_place(nl: Netlink) -> None:
    old = ensure_vxlan(nl, WANTED, ADDRESSES).link
    ip("link set vx down mtu 1300 arp off master br0")
    done = ensure_vxlan(nl, WANTED, ADDRESSES)
    assert (done.made, done.link.index) == (False, old.index)
    faults = {f.trait: f.observed for change in done.changes for f in change.faults}
    assert faults == {"up": False, "mtu": 1300, "arp": False, "master": "br0"}
    assert ensure_vxlan(nl, WANTED, ADDRESSES).changes == ()


def test_no_routes_of_others_but_those_by_a_peer(nl: Netlink) -> None:
    ensure_vxlan(nl, WANTED, ADDRESSES)
    ip("address add 169.254.7.7/16 dev vx")  # with its route; a DHCP client does so
    ip("route add default dev vx metric 2000")
    ip("route add 10.99.0.0/16 dev vx")
    ip("route add 10.98.0.0/16 via 10.244.2.0 dev vx onlink proto bird")
    ip("route add 10.97.0.0/16 dev vx table 7")
    ip("route add 10.244.2.0/24 via 10.244.2.0 dev vx onlink proto 113")
    ip("route add default via 10.244.2.0 dev vx onlink metric 3000")
    done = ensure_vxlan(nl, WANTED, ADDRESSES)
    gone = {str(c.noun.dst) for c in done.changes if isinstance(c.noun, Route)}
    assert gone == {"0.0.0.0/0", "10.99.0.0/16"}
    left = {line.split()[0] for line in ip("route show dev vx table all").splitlines()}
    assert left >= {"10.98.0.0/16", "10.97.0.0/16", "10.244.2.0/24"}
    assert not left & {"default", "10.99.0.0/16", "169.254.0.0/16"}
    assert addresses(nl) == {str(a.address) for a in ADDRESSES}
    assert ensure_vxlan(nl, WANTED, ADDRESSES).changes == ()


def test_its_addresses_are_exactly_those(nl: Netlink) -> None:
    ensure_vxlan(nl, WANTED, ADDRESSES)
    ip("address add 10.9.9.9/24 dev vx")
    ip("address del 10.244.1.0/32 dev vx")
    ip("address add fe80::9/64 dev vx")
    done = ensure_vxlan(nl, WANTED, ADDRESSES)
    assert [(c.desired is None, c.observed is None) for c in done.changes] == [
        (True, False),
        (False, True),
    ]
    assert addresses(nl) == {str(a.address) for a in ADDRESSES}
    assert "fe80::9/64" in ip("address show dev vx")


def test_another_kind_of_link_stays(nl: Netlink) -> None:
    with pytest.raises(KernelError, match="a bridge has that name"):
        ensure_vxlan(nl, replace(WANTED, name="br0"), ())
    assert remove_vxlan(nl, "br0") is False
    assert "br0" in ip("link show br0")


def test_without_its_uplink_there_is_no_device(nl: Netlink) -> None:
    with pytest.raises(KernelError) as caught:
        ensure_vxlan(nl, replace(WANTED, vxlan=replace(TUNNEL, uplink="eth9")), ())
    assert caught.value.errno == errno.ENODEV
    assert find_vxlan(nl, "vx") is None


@pytest.mark.parametrize(("vni", "port", "rival"), [(7, 4789, True), (8, 4789, False)])
def test_a_device_with_the_same_tunnel_is_named(
    nl: Netlink, vni: int, port: int, rival: bool
) -> None:
    ip(f"link add other type vxlan id {vni} dstport {port}")
    if not rival:
        assert ensure_vxlan(nl, WANTED, ()).made
        return
    with pytest.raises(Rivalry, match="other has VNI 7 and port 4789 already"):
        ensure_vxlan(nl, WANTED, ())


def test_a_device_is_removed_once(nl: Netlink) -> None:
    ensure_vxlan(nl, WANTED, ())
    assert remove_vxlan(nl, "vx") is True
    assert remove_vxlan(nl, "vx") is False
    assert find_vxlan(nl, "vx") is None
