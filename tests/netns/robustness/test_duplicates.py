"""Duplicate address detection of the pod's IPv6 addresses (RFC 4862), where it is asked for."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import BRIDGE, GATEWAYS, MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import MakeNamespace, Namespace

TAKEN = "fd00:77::9"
ASKED: dict[str, Any] = {"isGateway": False, "args": {"cni": {"ips": [TAKEN]}}}
"""The bridge is the node's own, and so is what else is on it."""


@pytest.fixture
def neighbour(scene: Scene, netns: MakeNamespace) -> Namespace:
    """A host on the pods' bridge that has one of their addresses."""
    found = netns("neighbour")
    scene.node.ns.ip_batch(
        f"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n"
        f"link add lan type veth peer name eth0 netns {found.name}\n"
        f"link set lan master {BRIDGE} up\n"
    )
    found.ip_batch(f"link set eth0 up\naddress add {TAKEN}/64 dev eth0 nodad\n")
    return found


def conf_of(mode: str = "bridge", **keys: Any) -> dict[str, Any]:
    return netconf(mode, (4, 6), enabledad=True, **keys)


def in_detection(pod: Namespace) -> list[Any]:
    """Addresses that are tested still, or have failed the test."""
    found = pod.ip("-6 address show tentative") + pod.ip("-6 address show dadfailed")
    return [link for link in found if link.get("addr_info")]


@pytest.mark.parametrize("program", ["podwire", "bridge"])
def test_an_address_that_a_neighbour_has_is_refused(
    scene: Scene, pod: Namespace, neighbour: Namespace, program: str
) -> None:
    before = scene.state(pod)
    answer = scene.call("ADD", conf_of(**ASKED), pod, program=program)
    assert answer.json["code"] == 101
    assert f"use address {TAKEN} of eth0 - a neighbour has it" in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []
    assert scene.rows() == {}
    neighbour.ip_batch(f"address delete {TAKEN}/64 dev eth0")
    attached = scene.add(conf_of(**ASKED), pod, program=program)
    assert attached.address(6) == TAKEN
    assert scene.check(attached, program=program).code == 0


def test_without_detection_it_is_not_asked(
    scene: Scene, pod: Namespace, neighbour: Namespace
) -> None:
    assert neighbour.link("eth0")
    attached = scene.add(netconf("bridge", (4, 6), **ASKED), pod)
    assert attached.address(6) == TAKEN


@pytest.mark.parametrize("mode", MODES)
def test_the_pod_has_its_network_when_add_returns(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str
) -> None:
    """With its routes, which may have an address as their source that passed its test."""
    attached = scene.add(conf_of(mode), make_pod())
    assert in_detection(attached.pod) == []
    assert attached.pod.ping(GATEWAYS[6])
    assert scene.check(attached).code == 0
    assert scene.call("GC", {**attached.conf, "cni.dev/valid-attachments": []}).code == 0
    assert scene.leftovers(attached.pod) == []


def test_a_test_that_does_not_end_fails_the_add(scene: Scene, pod: Namespace) -> None:
    pod.sysctl("ipv6/conf/default/dad_transmits", "9")
    before = scene.state(pod)
    answer = scene.call("ADD", conf_of(), pod)
    assert answer.json["code"] == 101
    assert "is still being tested" in answer.json["msg"]
    bridge = [line for line in before.changes_to(scene.state(pod)) if BRIDGE not in line]
    assert bridge == []
