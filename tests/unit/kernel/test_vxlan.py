"""The VXLAN device's messages as pyroute2 reads them, and what brings a device to its traits."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]

from kernel.diff import compare
from kernel.model import Link, Port, Vxlan
from kernel.netlink import links
from kernel.netlink.codec import Message
from kernel.vxlan import _repair_messages, create_vxlan, needs_new_device, read_vxlan
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
        ({"port": Port("cni0")}, [links.clear_master("vx")]),
        (
            {"port": Port("cni0"), "arp": False, "mtu": 9000, "mac": None},
            [
                links.clear_master("vx"),
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
