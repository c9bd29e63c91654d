"""CHECK finds what is broken, and names it."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import BRIDGE, FAMILIES, GATEWAYS, MODES, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace
from tests.pytest_netns.underlay import Family

CHECK_FAILED = 102
ETH_P_ALL, ETH_P_ARP = 0x0003, 0x0806  # linux/if_ether.h
OTHER_MAC = "02:00:00:00:be:ef"

Break = Callable[[Scene, Attached], None]


def in_pod(command: str) -> Break:
    return lambda scene, attached: attached.pod.ip_batch(command)


def on_node(command: str) -> Break:
    def act(scene: Scene, attached: Attached) -> None:
        scene.node.ns.ip_batch(command.format(host=attached.host, v4=attached.address(4)))

    return act


def nft(command: str) -> Break:
    return lambda scene, attached: void(scene.node.ns.run(["nft", command]))


def void(_value: object) -> None:
    return None


def lose_allocation(scene: Scene, attached: Attached) -> None:
    scene.query("DELETE FROM allocation WHERE length(address) = 5")


def stop_forwarding(scene: Scene, attached: Attached) -> None:
    scene.node.ns.sysctl("ipv4/ip_forward", "0")


@pytest.mark.parametrize("families", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("masq", [False, True], ids=["plain", "masq"])
def test_passes_right_after_add(
    scene: Scene, pod: Namespace, mode: str, families: tuple[Family, ...], masq: bool
) -> None:
    attached = scene.add(netconf(mode, families, ipMasq=masq), pod)
    assert scene.check(attached).code == 0
    assert all(pod.ping(GATEWAYS[family]) for family in families)


@pytest.mark.parametrize("mode", MODES)
def test_addresses_that_another_network_stack_has_taken(
    scene: Scene, pod: Namespace, mode: str
) -> None:
    """As gVisor does, whose packet socket takes all protocols; one that watches ARP is none."""
    attached = scene.add(netconf(mode, (4, 6), ipMasq=True), pod)
    pod.ip_batch("address flush dev eth0 scope global")
    for protocol, code in ((ETH_P_ALL, 0), (ETH_P_ARP, 1)):
        with pod.socket(socket.AF_PACKET, socket.SOCK_RAW) as stack:
            stack.bind(("eth0", protocol))
            assert scene.check(attached).code == code
    assert "is missing in the pod" in scene.check(attached).json["details"]


BROKEN: dict[str, tuple[Break, str]] = {
    "link gone": (in_pod("link delete eth0"), "link eth0 is missing in the pod"),
    "link renamed": (
        in_pod("link set eth0 down\nlink set eth0 name other0"),
        "link eth0 is missing in the pod",
    ),
    "node's end renamed": (
        on_node("link set {host} down\nlink set {host} name other0"),
        "is missing in the node",
    ),
    "pod's end down": (in_pod("link set eth0 down"), "link eth0 in the pod is down"),
    "node's end down": (on_node("link set {host} down"), "in the node is down"),
    "pod's MAC": (
        in_pod(f"link set eth0 address {OTHER_MAC}"),
        f"link eth0 in the pod has MAC {OTHER_MAC}, not ",
    ),
    "node's MAC": (on_node(f"link set {{host}} address {OTHER_MAC}"), f"has MAC {OTHER_MAC}, not "),
    "address gone": (
        in_pod("address flush dev eth0 scope global"),
        "address 10.77.0.2/24 is missing on eth0 in the pod",
    ),
    "IPv6 address gone": (
        in_pod("address del fd00:77::2/64 dev eth0"),
        "address fd00:77::2/64 is missing on eth0 in the pod",
    ),
    "other address": (
        in_pod("address del 10.77.0.2/24 dev eth0\naddress add 10.77.0.99/24 dev eth0"),
        "address 10.77.0.2/24 is missing on eth0 in the pod",
    ),
    "route gone": (
        in_pod("route del default"),
        "route 0.0.0.0/0 via 10.77.0.1 dev eth0 is missing in the pod",
    ),
    "IPv6 route gone": (
        in_pod("route del ::/0"),
        "route ::/0 via fd00:77::1 dev eth0 is missing in the pod",
    ),
    "route elsewhere": (
        in_pod("route replace default via 10.77.0.200 onlink dev eth0"),
        "route 0.0.0.0/0 in the pod goes via 10.77.0.200 dev eth0, not via 10.77.0.1 dev eth0",
    ),
    "IPv6 route elsewhere": (
        in_pod("route del ::/0\nroute add ::/0 via fe80::200 dev eth0"),
        "route ::/0 in the pod goes via fe80::200 dev eth0, not via fd00:77::1 dev eth0",
    ),
    "hairpin member gone": (
        nft("flush set inet podwire hairpin4"),
        "10.77.0.2 of nft table inet podwire is missing",
    ),
    "masquerade member gone": (
        nft("delete element inet podwire masquerade6 { fd00:77::/64 }"),
        "element masquerade6 fd00:77::/64 of nft table inet podwire is missing",
    ),
    "rules flushed": (
        nft("flush chain inet podwire postrouting"),
        "rules of nft table inet podwire are missing",
    ),
    "ruleset flushed": (nft("flush ruleset"), "rules of nft table inet podwire are missing"),
    "allocation lost": (lose_allocation, "allocation of 10.77.0.2 is lost"),
    "forwarding off": (stop_forwarding, "net/ipv4/ip_forward in the node is 0, not 1"),
}

BRIDGE_ONLY: dict[str, tuple[Break, str]] = {
    "other master": (
        on_node("link add other0 type bridge\nlink set {host} master other0"),
        f"has master other0, not {BRIDGE}",
    ),
    "no master": (on_node("link set {host} nomaster"), f"is not a port of bridge {BRIDGE}"),
    "hairpin off": (
        on_node("link set {host} type bridge_slave hairpin off"),
        "has hairpin off, not on",
    ),
    "bridge gone": (on_node(f"link delete {BRIDGE}"), f"link {BRIDGE} is missing in the node"),
    "bridge down": (on_node(f"link set {BRIDGE} down"), f"link {BRIDGE} in the node is down"),
    "gateway gone": (
        on_node(f"address flush dev {BRIDGE}"),
        f"address 10.77.0.1/24 is missing on {BRIDGE} in the node",
    ),
    "MAC check gone": (
        nft("flush set bridge podwire checked_ports"),
        "of nft table bridge podwire is missing",
    ),
    "MAC check's table gone": (
        nft("delete table bridge podwire"),
        "rules of nft table bridge podwire are missing",
    ),
}

PTP_ONLY: dict[str, tuple[Break, str]] = {
    "gateway gone": (
        on_node("address del 10.77.0.1/32 dev {host}"),
        "address 10.77.0.1/32 is missing on ",
    ),
    "node's route gone": (on_node("route del {v4}/32"), "route 10.77.0.2/32 dev "),
    "node's route elsewhere": (
        on_node("route del {v4}/32\nroute add {v4}/32 dev eth0"),
        "route 10.77.0.2/32 ",
    ),
    "route to the gateway gone": (
        in_pod("route del 10.77.0.1/32"),
        "route 10.77.0.1/32 dev eth0 is missing in the pod",
    ),
}

CASES = [
    pytest.param(mode, *broken, id=f"{mode}-{name}")
    for mode, only in (("bridge", BRIDGE_ONLY), ("ptp", PTP_ONLY))
    for name, broken in (BROKEN | only).items()
]


@pytest.mark.parametrize(("mode", "act", "words"), CASES)
def test_names_what_is_broken(
    scene: Scene, pod: Namespace, mode: str, act: Break, words: str
) -> None:
    more: dict[str, Any] = {"macspoofchk": True} if mode == "bridge" else {}
    attached = scene.add(netconf(mode, (4, 6), ipMasq=True, **more), pod)
    act(scene, attached)
    before = scene.state(pod)
    answer = scene.check(attached)
    assert answer.code != 0
    assert answer.json["code"] == CHECK_FAILED
    assert words in answer.json["details"], answer.json["details"]
    assert before.changes_to(scene.state(pod)) == [], "CHECK may change nothing"


def test_names_the_pod_and_every_fault(scene: Scene, pod: Namespace) -> None:
    attached = scene.add(
        netconf("ptp", (4, 6)), pod, args="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart"
    )
    pod.ip_batch("link set eth0 address 02:00:00:00:be:ef\nroute del 0.0.0.0/0\nroute del ::/0")
    answer = scene.check(attached, args="K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart").json
    assert answer["msg"].startswith("shop/cart (eth0 on network robust): ")
    assert "and 2 more" in answer["msg"]
    for words in ("has MAC", "route 0.0.0.0/0", "route ::/0"):
        assert words in answer["details"]


def test_attachment_that_never_was(scene: Scene, pod: Namespace) -> None:
    attached = Attached(pod, "c1", "eth0", netconf("ptp"), {"cniVersion": "1.1.0"})
    answer = scene.check(attached)
    assert answer.json["code"] == CHECK_FAILED
    assert "no record" in answer.json["msg"]
