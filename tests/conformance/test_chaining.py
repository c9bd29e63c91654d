"""prevResult on ADD (SPEC section 2 "ADD", section 5 "ADD Success")."""

from __future__ import annotations

from typing import Any

import pytest

from .network import IFNAME, Network, Pod
from .spec import at_least

Json = dict[str, Any]


def earlier(pod: Pod, version: str) -> Json:
    """What a plugin earlier in the chain returned: another interface with an address."""
    pod.space.ip("link", "add", "early0", "type", "veth", "peer", "name", "early1")
    pod.space.ip("address", "add", "198.51.100.9/24", "dev", "early0")
    mac = (pod.space.link("early0") or {})["address"]
    ip: Json = {"address": "198.51.100.9/24", "interface": 0}
    if not at_least(version, "1.0.0"):
        ip["version"] = "4"
    return {
        "cniVersion": version,
        "interfaces": [{"name": "early0", "mac": mac, "sandbox": pod.path}],
        "ips": [ip],
        "routes": [{"dst": "203.0.113.0/24", "gw": "198.51.100.1"}],
        "dns": {"nameservers": ["198.51.100.53"]},
    }


def owners(result: Json) -> set[tuple[str, str]]:
    """Pairs of address and interface name, whatever the indexes are."""
    names = [interface["name"] for interface in result["interfaces"]]
    return {(ip["address"], names[ip["interface"]]) for ip in result["ips"] if "interface" in ip}


def test_add_keeps_the_previous_result(net: Network, pod: Pod, rich_version: str) -> None:
    """Section 5, ADD Success: prevResult MUST be output, with this plugin's changes."""
    previous = earlier(pod, rich_version)
    attachment = net.attach(pod, conf=net.conf(rich_version, prevResult=previous))
    result = attachment.result
    assert previous["interfaces"][0] in result["interfaces"], result
    assert ("198.51.100.9/24", "early0") in owners(result), result
    assert "203.0.113.0/24" in {route["dst"] for route in result.get("routes", [])}, result


def test_add_after_another_plugin_still_adds(net: Network, pod: Pod) -> None:
    """Section 2, ADD: its own interface is there and in the result."""
    previous = earlier(pod, net.version)
    attachment = net.attach(pod, conf=net.conf(prevResult=previous))
    names = {interface["name"] for interface in attachment.result["interfaces"]}
    assert IFNAME in names, attachment.result
    assert attachment.addresses()


def test_delete_in_a_chain(net: Network, pod: Pod) -> None:
    """Section 2, DEL: with a result of several plugins, only its own interface goes."""
    attachment = net.attach(pod, conf=net.conf(prevResult=earlier(pod, net.version)))
    net.delete(attachment).silent()
    assert pod.space.link_names() == {"lo", "early0", "early1"}


@pytest.mark.cni_needs("CHECK")
def test_check_in_a_chain(net: Network, pod: Pod) -> None:
    """Section 3, Checking: prevResult is the final result of the chain's ADD (MUST)."""
    previous = earlier(pod, net.version)
    pod.space.ip("link", "set", "early0", "up")
    pod.space.ip("link", "set", "early1", "up")
    pod.space.ip("route", "add", "203.0.113.0/24", "via", "198.51.100.1", "dev", "early0")
    attachment = net.attach(pod, conf=net.conf(prevResult=previous))
    net.check(attachment).silent()
