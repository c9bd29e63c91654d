"""CHECK (SPEC section 2 "CHECK", section 3 "Checking an attachment")."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from .network import IFNAME, Attachment, Network, Pod, encode
from .spec import INCOMPATIBLE_VERSION

Json = dict[str, Any]
pytestmark = pytest.mark.cni_needs("CHECK")
MALFORMED: dict[str, object] = {
    "empty": {},
    "list": [],
    "string": "x",
    "unknown-version": {"cniVersion": "9.9.9"},
    "wrong-type-inside": {"ips": "x"},
}


def with_result(attachment: Attachment, change: Callable[[Json], None]) -> bytes:
    """The configuration of a CHECK whose prevResult has been changed."""
    result = copy.deepcopy(attachment.result)
    change(result)
    return encode({**attachment.conf, "prevResult": result})


def test_check_after_add(net: Network, check_version: str) -> None:
    """Section 2, CHECK: MUST work "immediately after an ADD", in each version; no output."""
    attachment = net.attach(conf=net.conf(check_version))
    net.check(attachment).silent()


def test_check_changes_nothing(net: Network) -> None:
    """Section 2, CHECK: it probes."""
    attachment = net.attach()
    with net.unchanged(attachment.pod):
        net.check(attachment).silent()
        net.check(attachment).silent()


def test_check_of_each_interface_name(net: Network, pod: Pod) -> None:
    """Section 3: the attachment is (CNI_CONTAINERID, CNI_IFNAME)."""
    first, second = net.attach(pod, "eth0"), net.attach(pod, "eth1")
    net.check(first).silent()
    net.check(second).silent()
    net.delete(first).silent()
    net.check(first).error()


def test_check_before_it_existed(net: Network, version_without_check: str) -> None:
    """0.4.0 introduced CHECK: earlier configurations cannot be checked."""
    attachment = net.attach(conf=net.conf(version_without_check))
    net.check(attachment).error(INCOMPATIBLE_VERSION)


def test_check_needs_a_previous_result(net: Network) -> None:
    """Section 2, CHECK: "The plugin must consult the prevResult", so it needs one."""
    attachment = net.attach()
    net.check(attachment, stdin=encode(attachment.conf)).error()


@pytest.mark.parametrize("case", MALFORMED)
def test_check_with_malformed_previous_result(net: Network, case: str) -> None:
    """Section 2, CHECK: a prevResult that is no result of an ADD."""
    attachment = net.attach()
    net.check(attachment, stdin=encode({**attachment.conf, "prevResult": MALFORMED[case]})).error()


def test_check_after_delete(net: Network) -> None:
    """Section 2, CHECK: interface gone (SHOULD)."""
    attachment = net.attach()
    net.delete(attachment).silent()
    net.check(attachment).error()


def test_check_without_interface(net: Network, check_version: str) -> None:
    """Section 2, CHECK: an interface of prevResult is missing (SHOULD)."""
    attachment = net.attach(conf=net.conf(check_version))
    attachment.pod.space.ip("link", "delete", IFNAME)
    net.check(attachment).error()


def test_check_without_address(net: Network, check_version: str) -> None:
    """Section 2, CHECK: an address of prevResult is missing (SHOULD)."""
    attachment = net.attach(conf=net.conf(check_version))
    attachment.pod.space.ip("address", "flush", "dev", IFNAME, "scope", "global")
    net.check(attachment).error()


def test_check_with_another_address(net: Network) -> None:
    """Section 2, CHECK: the address in the kernel is not that of prevResult (SHOULD)."""
    attachment = net.attach()
    for address in attachment.addresses():
        attachment.pod.space.ip("address", "delete", address, "dev", IFNAME)
    attachment.pod.space.ip("address", "add", "198.51.100.9/24", "dev", IFNAME)
    net.check(attachment).error()


def test_check_without_route(net: Network) -> None:
    """Section 2, CHECK: a route of prevResult is missing (SHOULD)."""
    attachment = net.attach()
    if not attachment.result.get("routes"):
        net.check(attachment).silent()
        return
    for route in attachment.result["routes"]:
        attachment.pod.space.ip("route", "delete", route["dst"])
    net.check(attachment).error()


def test_check_with_interface_down(net: Network) -> None:
    """Section 2, CHECK: "generally unreachable" (SHOULD)."""
    attachment = net.attach()
    attachment.pod.space.ip("link", "set", IFNAME, "down")
    net.check(attachment).error()


def test_check_with_host_side_down(net: Network) -> None:
    """Section 2, CHECK: the host's interface is "in an invalid state" (SHOULD)."""
    attachment = net.attach()
    for name in _host_ports(net, attachment):
        net.node.ip("link", "set", name, "down")
    net.check(attachment).error()


def test_check_with_another_mac(net: Network) -> None:
    """Section 2, CHECK: the interface differs from prevResult (SHOULD)."""
    attachment = net.attach()
    attachment.pod.space.ip("link", "set", IFNAME, "address", "02:00:00:00:00:01")
    net.check(attachment).error()


def test_check_without_the_namespace(net: Network) -> None:
    """Section 2, CHECK: without its namespace nothing is there."""
    attachment = net.attach()
    attachment.pod.space.remove()
    net.check(attachment).error()


def test_check_consults_the_previous_result(net: Network) -> None:
    """Section 2, CHECK: "must consult the prevResult": it lists another address (MUST)."""

    def change(result: Json) -> None:
        result["ips"][0]["address"] = "198.51.100.9/24"

    attachment = net.attach()
    net.check(attachment, stdin=with_result(attachment, change)).error()


def test_check_consults_the_interfaces_of_the_previous_result(net: Network) -> None:
    """Section 2, CHECK: "to determine the expected interfaces": another MAC (MUST)."""

    def change(result: Json) -> None:
        next(i for i in result["interfaces"] if i.get("sandbox"))["mac"] = "02:00:00:00:00:01"

    attachment = net.attach()
    net.check(attachment, stdin=with_result(attachment, change)).error()


def test_check_allows_a_later_plugins_mac(net: Network) -> None:
    """Appendix, Check example: `tuning` changed the MAC, prevResult has the new one (MUST)."""
    mac = "02:00:00:00:00:01"

    def change(result: Json) -> None:
        mine = next(i for i in result["interfaces"] if i.get("sandbox"))
        mine["mac"] = mac

    attachment = net.attach()
    attachment.pod.space.ip("link", "set", IFNAME, "address", mac)
    net.check(attachment, stdin=with_result(attachment, change)).silent()


def test_check_allows_a_later_plugins_route(net: Network) -> None:
    """Section 2, CHECK: a later plugin added a route and the result has it (MUST)."""
    route = "198.51.100.0/24"
    attachment = net.attach()
    attachment.pod.space.ip("route", "add", route, "dev", IFNAME)

    def change(result: Json) -> None:
        result.setdefault("routes", []).append({"dst": route})

    net.check(attachment, stdin=with_result(attachment, change)).silent()


def test_check_allows_a_later_plugins_interface(net: Network) -> None:
    """Section 2, CHECK: a later plugin added an interface with an address (MUST)."""
    attachment = net.attach()
    space = attachment.pod.space
    space.ip("link", "add", "more0", "type", "veth", "peer", "name", "more1")
    space.ip("address", "add", "198.51.100.9/24", "dev", "more0")
    mac = (space.link("more0") or {})["address"]

    def change(result: Json) -> None:
        more = {"name": "more0", "mac": mac, "sandbox": space.path}
        result["interfaces"].append(more)
        ip = {"address": "198.51.100.9/24", "interface": len(result["interfaces"]) - 1}
        version = {"version": "4"} if "version" in result["ips"][0] else {}
        result["ips"].append({**ip, **version})

    net.check(attachment, stdin=with_result(attachment, change)).silent()


def _host_ports(net: Network, attachment: Attachment) -> list[str]:
    """The host's ends of this attachment: those of its links that are veth devices."""
    names = [i["name"] for i in attachment.result["interfaces"] if not i.get("sandbox")]
    links = [net.node.link(name) or {} for name in names]
    kinds = {link["ifname"]: link.get("linkinfo", {}).get("info_kind") for link in links}
    found = [name for name, kind in kinds.items() if kind == "veth"]
    assert found, f"no host interface in {attachment.result}"
    return found
