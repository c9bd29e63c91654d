"""What all back ends have in common; the entries of each are in `test_planner`."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import get_args

import pytest

from daemon.config.schema import ENCAPSULATING, Backend
from daemon.routing.backends import BACKENDS, backend_of
from daemon.routing.backends.base import explain_no_ipv6, plan_device_addresses, plan_mtu
from daemon.routing.host_state import HostView, Unplannable, view_host
from tests.unit.daemon.clusters import host_state, node, settings

DUAL = node("node-1", "192.0.2.1 2001:db8::1", "10.244.1.0/24 fd00:0:1::/64")


def view(text: str = "", mtu: int = 1500) -> HostView:
    host = host_state("192.0.2.1/24", "2001:db8::1/64", uplink_mtu=mtu)
    return view_host(settings(text), DUAL, host, {}, ())


def test_each_name_of_the_configuration_has_a_class() -> None:
    assert set(BACKENDS) == set(get_args(Backend))


@pytest.mark.parametrize("name", get_args(Backend))
def test_those_that_encapsulate_have_a_device_and_an_overhead(name: Backend) -> None:
    backend = backend_of(settings(f"backend: {name}"))
    encapsulates = name in ENCAPSULATING
    assert backend.device == ("podwire-vxlan" if encapsulates else "")
    assert backend.overhead(view()) == (50 if encapsulates else 0)
    assert backend.overhead(view("underlay: ipv6")) == (70 if encapsulates else 0)
    device = backend.plan_device(view(), 1400)
    assert (device.name if device else "") == backend.device
    assert list(backend.plan_own_routes([ip_network("10.0.0.0/24")])) == [] or name == "host-gw"


def test_host_gw_gives_the_node_its_source_addresses_for_probes_alone() -> None:
    prefixes = [ip_network("10.0.1.0/24"), ip_network("fd00:0:1::/64")]
    routes = list(backend_of(settings("backend: host-gw")).plan_own_routes(prefixes))
    assert [str(route.dst) for route in routes] == ["10.0.1.0/32", "fd00:0:1::/128"]
    # linux/rtnetlink.h: RT_SCOPE_HOST; IPv6 knows no other scope than universe.
    assert [route.scope for route in routes] == [254, 0]
    assert all((route.local, route.table, route.link) == (True, 255, "lo") for route in routes)
    silent = settings("backend: host-gw\nhealth: false")
    assert list(backend_of(silent).plan_own_routes(prefixes)) == []


def test_the_source_addresses_are_the_first_of_the_prefixes() -> None:
    prefixes = [ip_network("10.0.1.0/24"), ip_network("fd00:0:1::/64")]
    backend = backend_of(settings())
    addresses = list(backend.source_addresses(prefixes))
    assert addresses == [ip_address("10.0.1.0"), ip_address("fd00:0:1::")]
    assert list(backend_of(settings("backend: none")).source_addresses(prefixes)) == []
    device = backend.plan_device(view(), 1450)
    assert device is not None
    given = [str(a.address) for a in plan_device_addresses(device, addresses)]
    assert given == ["10.0.1.0/32", "fd00:0:1::/128"]


@pytest.mark.parametrize(
    ("addresses", "reached"),
    [
        ("192.0.2.2", {"vxlan", "host-gw", "hybrid", "none"}),
        ("2001:db8::2", {"none"}),
        ("2001:db8::2 192.0.2.2", {"vxlan", "host-gw", "hybrid", "none"}),
    ],
)
def test_which_addresses_leave_a_path(addresses: str, reached: set[str]) -> None:
    peer = node("node-2", addresses, "10.244.2.0/24")
    lacking = {n: BACKENDS[n](settings()).lacking_address(DUAL, peer, 4) for n in get_args(Backend)}
    assert {name for name, why in lacking.items() if not why} == reached
    six = {n: BACKENDS[n](settings()).lacking_address(DUAL, peer, 6) for n in get_args(Backend)}
    assert six["hybrid"] == six["none"] == ""
    assert (six["host-gw"] == "") is (":" in addresses)


def test_the_mtu_is_what_encapsulation_leaves() -> None:
    assert plan_mtu(settings(), view(), 50) == 1450
    assert plan_mtu(settings("mtu: 1400"), view(), 50) == 1400
    assert plan_mtu(settings("mtu: 1450"), view(), 50) == 1450
    # ETH_MAX_MTU bounds a loopback-like uplink of 65536.
    assert plan_mtu(settings(), view(mtu=65536), 50) == 65485


@pytest.mark.parametrize(
    ("text", "mtu", "why"),
    [
        ("", 117, "eth0 has an MTU of 117, which leaves pods nothing"),
        ("mtu: 1451", 1500, "more than the uplink takes: eth0 has 1500, 50 of it for encaps"),
    ],
)
def test_an_impossible_mtu_is_named(text: str, mtu: int, why: str) -> None:
    with pytest.raises(Unplannable, match=why):
        plan_mtu(settings(text), view(mtu=mtu), 50)


def test_the_smallest_mtu_that_serves() -> None:
    assert plan_mtu(settings(), view(mtu=1330), 50) == 1280
    assert explain_no_ipv6(view(mtu=1330), 1280) == ""
    assert explain_no_ipv6(view(mtu=1329), 1279) == (
        "IPv6 pods need an MTU of 1280 (RFC 8200), and have 1279: eth0 has 1329"
    )
