"""The node's side of attachments as values: what is desired, and what differs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from cni_plugin.attachment import Record
from daemon.routing.node_side import Attached, compare_link, merge_bridges, node_space, strays
from ipam.store import Owner
from kernel.describe import describe
from kernel.model import (
    RTPROT_PODWIRE,
    Address,
    Bridge,
    Link,
    Plan,
    Port,
    Route,
    Space,
    Sysctl,
)

HOST = Link("pw0", mac="02:00:00:00:00:01", mtu=1450, alias="podwire net=n")
GATEWAY = Address("pw0", ip_interface("10.88.0.1/32"))
ROUTE = Route(ip_network("10.88.0.2/32"), "pw0", protocol=RTPROT_PODWIRE)
FORWARDING = Sysctl("net/ipv4/conf/pw0/forwarding", "1")
NODE = Space((HOST,), (GATEWAY,), (ROUTE,), (FORWARDING, Sysctl("net/ipv4/ip_forward", "1")))
ONE, TWO = ip_interface("10.89.0.1/24"), ip_interface("10.90.0.1/24")


def record(node: Space = NODE, bridge: Bridge | None = None) -> Record:
    return Record(Plan(node, Space((Link("eth0"),)), bridge))


def attached(number: int, bridge: Bridge, *, alive: bool = True) -> Attached:
    host = replace(HOST, name=f"pw{number}", port=Port(bridge.name))
    made = record(Space((host,)), bridge)
    return Attached(
        Owner("n", f"c{number}", "eth0"), made, node_space(made), host if alive else None
    )


def test_a_routed_pair_has_no_master_and_its_own_settings() -> None:
    space = node_space(record())
    assert space.links[0].port == Port("")
    assert space.sysctls == (FORWARDING,)


def test_a_record_from_an_alias_leaves_the_master_open() -> None:
    assert node_space(replace(record(), complete=False)).links[0].port is None


@pytest.mark.parametrize(
    ("observed", "differences"),
    [
        (NODE, []),
        (replace(NODE, links=(replace(HOST, up=False),)), ["link pw0 is down"]),
        (
            replace(NODE, links=(replace(HOST, port=Port("br9")),)),
            ["link pw0 has master br9, and should have none"],
        ),
        (replace(NODE, addresses=()), ["address 10.88.0.1/32 is missing on pw0"]),
        (replace(NODE, routes=()), ["route 10.88.0.2/32 dev pw0 is missing"]),
        (
            replace(NODE, addresses=(GATEWAY, Address("pw0", ip_interface("10.1.0.1/24")))),
            [],
        ),
    ],
)
def test_what_differs_of_a_link(observed: Space, differences: list[str]) -> None:
    found = [describe(change) for change in compare_link(node_space(record()), observed)]
    assert [text.replace(" proto 112", "") for text in found] == differences


def test_a_bridge_has_the_gateways_of_all_that_need_it() -> None:
    one, two = Bridge("cni0", 1450, gateways=(ONE,)), Bridge("cni0", 1450, gateways=(TWO,))
    merged = merge_bridges([attached(1, one), attached(2, two, alive=False)], None, {})
    assert merged == {"cni0": Bridge("cni0", 1450, gateways=(ONE, TWO))}


def test_a_bridge_that_no_link_needs_is_not_desired() -> None:
    gone, own = attached(1, Bridge("cni0"), alive=False), Bridge("cni0", gateways=(ONE,))
    assert merge_bridges([gone], own, {}) == {}
    assert merge_bridges([gone], own, {"cni0": Space()}) == {"cni0": own}


def test_only_gateways_with_the_mark_are_strays() -> None:
    ours = Address("cni0", TWO, protocol=RTPROT_PODWIRE)
    foreign = Address("cni0", ip_interface("10.99.0.1/16"))
    wanted = Address("cni0", ONE, protocol=RTPROT_PODWIRE)
    found = strays(Bridge("cni0", gateways=(ONE,)), Space(addresses=(wanted, ours, foreign)))
    assert [change.observed for change in found] == [ours]
