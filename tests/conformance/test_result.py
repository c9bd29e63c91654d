"""The result of ADD (SPEC section 5 "ADD Success" and its older forms)."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from . import shapes
from .netconf import dual_stack, six_only
from .network import Attachment, Network
from .spec import INCOMPATIBLE_VERSION
from .suite import Suite

Json = dict[str, Any]


def inside(attachment: Attachment) -> tuple[int, Json]:
    """The pod's interface in the result, and its index."""
    found = [
        (index, interface)
        for index, interface in enumerate(attachment.result["interfaces"])
        if interface.get("sandbox")
    ]
    assert len(found) == 1, f"not exactly one interface with a sandbox: {attachment.result}"
    return found[0]


def test_result_has_the_form_of_its_version(net: Network, version: str) -> None:
    """Section 5, ADD Success, and "Result" of 0.1.0 to 0.4.0: keys and types per version."""
    attachment = net.attach(conf=net.conf(version))
    shapes.check_result(attachment.result, version)


def test_result_lists_the_addresses_in_the_pod(net: Network, version: str) -> None:
    """Section 5, ADD Success, ips: "IPs assigned by this attachment"."""
    attachment = net.attach(conf=net.conf(version))
    named = shapes.addresses(attachment.result)
    have = {ipaddress.ip_interface(a) for a in attachment.addresses()}
    assert named, attachment.result
    assert {ipaddress.ip_interface(a).ip for a in named} == {a.ip for a in have}


def test_result_lists_the_routes_in_the_pod(net: Network, version: str) -> None:
    """Section 5, ADD Success, routes: "Routes created by this attachment"."""
    attachment = net.attach(conf=net.conf(version))
    named = {str(ipaddress.ip_network(d)) for d in shapes.destinations(attachment.result)}
    assert named <= attachment.pod.space.route_destinations(), attachment.result


def test_result_names_the_sandbox(net: Network, rich_version: str) -> None:
    """Section 5, ADD Success, sandbox: "should be the value passed via CNI_NETNS"."""
    attachment = net.attach(conf=net.conf(rich_version))
    _, interface = inside(attachment)
    assert interface["sandbox"] == attachment.pod.path
    assert interface["name"] == attachment.ifname


def test_result_has_the_macs_of_the_kernel(net: Network, rich_version: str) -> None:
    """Section 5, ADD Success, mac, of pod and host interfaces; sandbox empty on the host."""
    attachment = net.attach(conf=net.conf(rich_version))
    for interface in attachment.result["interfaces"]:
        where = attachment.pod.space if interface.get("sandbox") else net.node
        link = where.link(interface["name"])
        assert link is not None, f"{interface} does not exist"
        assert link["address"] == interface["mac"].lower(), interface


def test_result_ties_addresses_to_the_interface(net: Network, rich_version: str) -> None:
    """Section 5, ADD Success, ips.interface: the index of the interface that has it."""
    attachment = net.attach(conf=net.conf(rich_version))
    index, _ = inside(attachment)
    have = attachment.addresses()
    mine = [ip for ip in attachment.result["ips"] if ip.get("interface") == index]
    assert {ip["address"] for ip in mine} == have, attachment.result


@pytest.mark.cni_needs("1.1.0")
def test_result_has_the_mtu_in_the_pod(net: Network) -> None:
    """Section 5 of 1.1.0, ADD Success, interfaces.mtu, which each link of a pod has."""
    attachment = net.attach(conf=net.conf("1.1.0"))
    _, interface = inside(attachment)
    link = attachment.pod.space.link(attachment.ifname) or {}
    assert interface.get("mtu") == link["mtu"], interface


@pytest.mark.cni_needs("1.1.0")
def test_result_has_the_mtus_on_the_host(net: Network) -> None:
    """Section 5 of 1.1.0, ADD Success, interfaces.mtu, which bridge and veth have too."""
    interfaces = net.attach(conf=net.conf("1.1.0")).result["interfaces"]
    outside = [interface for interface in interfaces if not interface.get("sandbox")]
    links = [net.node.link(interface["name"]) or {} for interface in outside]
    assert [i.get("mtu") for i in outside] == [link["mtu"] for link in links], outside


@pytest.mark.cni_needs("dns")
def test_result_passes_dns_on(net: Network) -> None:
    """Section 5, ADD Success, dns, as section 1 "dns" gives it."""
    attachment = net.attach()
    for key, value in net.body["dns"].items():
        assert attachment.result.get("dns", {}).get(key) == value, attachment.result


@pytest.mark.cni_needs("derived")
@pytest.mark.parametrize("generation", ["0.2.0", "newest"])
def test_result_in_ipv6_alone(net: Network, suite: Suite, generation: str) -> None:
    """Section 5, ADD Success, and ip6 of 0.2.0: nothing presumes IPv4."""
    version = net.version if generation == "newest" else generation
    if version not in suite.declared:
        net.add(net.pod(), conf=net.conf(version)).error(INCOMPATIBLE_VERSION)
        return
    attachment = net.attach(conf=six_only(net.conf(version)))
    shapes.check_result(attachment.result, version)
    named = shapes.addresses(attachment.result)
    assert {ipaddress.ip_interface(a).version for a in named} == {6}, named
    assert named == attachment.addresses()


@pytest.mark.cni_needs("derived")
@pytest.mark.parametrize("generation", ["0.2.0", "0.4.0", "newest"])
def test_result_in_both_families(net: Network, suite: Suite, generation: str) -> None:
    """Section 5, ADD Success, and ip4 beside ip6 of 0.2.0: both families in one result."""
    version = net.version if generation == "newest" else generation
    if version not in suite.declared:
        net.add(net.pod(), conf=net.conf(version)).error(INCOMPATIBLE_VERSION)
        return
    attachment = net.attach(conf=dual_stack(net.conf(version)))
    shapes.check_result(attachment.result, version)
    named = shapes.addresses(attachment.result)
    assert {ipaddress.ip_interface(a).version for a in named} == {4, 6}, named
    assert named == attachment.addresses()
