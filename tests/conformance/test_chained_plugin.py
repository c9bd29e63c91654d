"""A plugin behind others in a chain: its verbs and their result (SPEC sections 2, 3 and 5)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from .netconf import ALONE
from .network import IFNAME, Attachment, Network, Pod, encode
from .spec import at_least

pytestmark = pytest.mark.cni_needs("chained")

Json = dict[str, Any]
ADDRESS, GATEWAY = "198.51.100.9", "198.51.100.1"


def previous(net: Network, pod: Pod, version: str = "") -> Json:
    """What the plugins in front have made, and their result."""
    version = version or net.version
    pod.space.ip("link", "add", IFNAME, "type", "veth", "peer", "name", "host0")
    pod.space.ip("link", "set", "host0", "netns", net.node.name)
    for space, name, address in ((net.node, "host0", GATEWAY), (pod.space, IFNAME, ADDRESS)):
        space.ip("address", "add", f"{address}/24", "dev", name)
        space.ip("link", "set", name, "up")
    pod.space.ip("link", "set", "lo", "up")
    net.node.ip("link", "set", "lo", "up")
    links = [("host0", net.node, {}), (IFNAME, pod.space, {"sandbox": pod.path})]
    ip: Json = {"address": f"{ADDRESS}/24", "gateway": GATEWAY, "interface": 1}
    if not at_least(version, "1.0.0"):
        ip["version"] = "4"
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": name, "mac": (space.link(name) or {})["address"], **more}
            for name, space, more in links
        ],
        "ips": [ip],
        "routes": [{"dst": "203.0.113.0/24", "gw": GATEWAY}],
        "dns": {"nameservers": [GATEWAY]},
    }


def attach(net: Network, pod: Pod, version: str = "") -> Attachment:
    """ADD of the chain's first part and of the plugin."""
    conf = net.conf(version or net.version, prevResult=previous(net, pod, version))
    return net.attach(pod, ifname_of(net), conf)


def ifname_of(net: Network) -> str:
    return "lo" if net.body["type"] == ALONE else IFNAME


def test_add_passes_the_previous_result_on(net: Network, pod: Pod, rich_version: str) -> None:
    """Section 5, ADD Success: prevResult MUST be output, with this plugin's changes."""
    attachment = attach(net, pod, rich_version)
    before, after = attachment.conf["prevResult"], attachment.result
    assert after["cniVersion"] == rich_version
    for key in ("ips", "routes", "dns"):
        assert after.get(key) == before[key], after
    names = [(i["name"], i.get("sandbox", "")) for i in after["interfaces"]]
    assert names[:2] == [("host0", ""), (IFNAME, pod.path)], after


@pytest.mark.cni_needs("previous")
def test_add_needs_a_previous_result(net: Network, pod: Pod) -> None:
    """A chained plugin has nothing to change without one."""
    with net.unchanged(pod):
        net.add(pod).error()


def test_add_then_delete_changes_nothing(net: Network, pod: Pod) -> None:
    """Section 2, DEL: "undo any modifications applied" by ADD."""
    before = previous(net, pod)
    # Tables and chains that all attachments share may come with the first and stay.
    first = net.attach(pod, ifname_of(net), net.conf(prevResult=before))
    net.delete(first).silent()
    with net.unchanged(pod):
        second = net.attach(pod, ifname_of(net), net.conf(prevResult=before))
        net.delete(second).silent()


def test_delete_again(net: Network, pod: Pod) -> None:
    """Section 2, DEL: "Plugins MUST accept multiple DEL calls" for the same pair."""
    attachment = attach(net, pod)
    net.delete(attachment).silent()
    with net.unchanged(pod):
        net.delete(attachment).silent()
        net.delete(attachment).silent()


def test_delete_before_any_add(net: Network, pod: Pod) -> None:
    """Section 2, DEL: success where there is nothing to undo (MUST)."""
    conf = net.conf(prevResult=previous(net, pod))
    with net.unchanged(pod):
        net.run(net.request("DEL", pod, conf, ifname_of(net))).silent()


def test_delete_without_previous_result(net: Network, pod: Pod) -> None:
    """Section 3, Deleting: a runtime that has lost the result sends none."""
    attachment = attach(net, pod)
    net.delete(attachment, stdin=encode(net.conf())).silent()


def test_delete_after_the_namespace(net: Network, pod: Pod) -> None:
    """Section 2, DEL: "complete without error even if some resources are missing" (SHOULD)."""
    attachment = attach(net, pod)
    pod.space.remove()
    for _ in range(2):
        net.delete(attachment).silent()


def test_delete_without_naming_the_namespace(net: Network, pod: Pod) -> None:
    """Section 2, DEL: CNI_NETNS is optional."""
    net.delete(attach(net, pod), netns=None).silent()


@pytest.mark.cni_needs("CHECK")
def test_check_after_add(net: Network, pod: Pod, check_version: str) -> None:
    """Section 2, CHECK: no output, nothing changed."""
    attachment = attach(net, pod, check_version)
    with net.unchanged(pod):
        net.check(attachment).silent()


@pytest.mark.cni_needs("CHECK", "previous")
def test_check_needs_a_previous_result(net: Network, pod: Pod) -> None:
    """Section 3, Checking: prevResult MUST be there."""
    net.check(attach(net, pod), stdin=encode(net.conf())).error()


def test_undeclared_version(net: Network, pod: Pod, undeclared_version: str) -> None:
    """Section 5, Error: code 1 for a version that is not supported."""
    conf = net.conf(undeclared_version, prevResult=previous(net, pod))
    net.add(pod, ifname_of(net), conf).error(1)


def test_add_with_a_wrong_environment(net: Network, pod: Pod) -> None:
    """Section 5, Error: of the wrong variable; nothing is changed."""
    conf = net.conf(prevResult=previous(net, pod))
    request = net.request("ADD", pod, conf, ifname_of(net))
    with net.unchanged(pod):
        wrong: Json
        for wrong in ({"netns": None}, {"container_id": None}, {"ifname": "a/b"}):
            net.run(replace(request, **wrong)).error()


@pytest.mark.cni_needs("GC")
def test_gc_and_status(net: Network, pod: Pod) -> None:
    """Section 2, GC and STATUS: no output; what is listed stays."""
    attachment = attach(net, pod)
    with net.unchanged(pod):
        net.status().silent()
        net.collect(attachment).silent()
    net.check(attachment).silent()
