"""Bridge ports: MAC check, isolation, promiscuous mode, an interface left down."""

import socket
from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import BRIDGE, GATEWAYS, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
FOREIGN = "02:00:00:00:be:ef"
ETHERTYPE = 0x88B5  # for local experiments (IEEE 802)


def send_frame(pod: Namespace, source: str) -> None:
    """Broadcast one frame from the pod's eth0 with this source address."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            header = b"\xff" * 6 + bytes.fromhex(source.replace(":", ""))
            raw.send(header + ETHERTYPE.to_bytes(2) + source.encode().ljust(46))

    pod.call(send)


def listen(pod: Namespace) -> socket.socket:
    def start() -> socket.socket:
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        raw.bind(("eth0", ETHERTYPE))
        raw.settimeout(60)
        return raw

    return pod.call(start)


def mac_of(pod: Namespace) -> str:
    link = pod.link("eth0")
    assert link is not None
    return str(link["address"])


@pytest.mark.parametrize("checked", [True, False])
def test_mac_check(scene: Scene, make_pod: MakePod, checked: bool) -> None:
    conf = netconf("bridge", (4, 6), macspoofchk=checked)
    sender, receiver = (scene.add(conf, make_pod(), f"c{number}") for number in range(2))
    with listen(receiver.pod) as socket_:
        send_frame(sender.pod, FOREIGN)
        send_frame(sender.pod, mac_of(sender.pod))
        first = socket_.recv(64)[6:12].hex(":")
    assert first == (mac_of(sender.pod) if checked else FOREIGN)
    sender.pod.ip_batch(f"link set eth0 address {FOREIGN}")
    assert sender.pod.ping(GATEWAYS[4], seconds=2 if checked else 10) != checked
    assert receiver.pod.ping(GATEWAYS[4])


def test_mac_check_of_a_requested_mac(scene: Scene, pod: Namespace) -> None:
    conf = netconf("bridge", macspoofchk=True, runtimeConfig={"mac": FOREIGN})
    attached = scene.add(conf, pod)
    assert mac_of(pod) == FOREIGN
    assert pod.ping(GATEWAYS[4])
    scene.delete(attached)
    assert scene.ruleset() == ""


def test_mac_check_survives_a_flush(scene: Scene, make_pod: MakePod) -> None:
    """Rules that somebody flushed come back with the next pod, for the old pods too."""
    conf = netconf("bridge", macspoofchk=True)
    old = scene.add(conf, make_pod(), "old")
    scene.node.ns.run(["nft", "flush ruleset"])
    scene.add(conf, make_pod(), "new")
    assert scene.check(old).code == 0
    old.pod.ip_batch(f"link set eth0 address {FOREIGN}")
    assert not old.pod.ping(GATEWAYS[4], seconds=2)


@pytest.mark.parametrize("isolated", [True, False])
def test_isolation(scene: Scene, make_pod: MakePod, isolated: bool) -> None:
    conf = netconf("bridge", (4, 6), portIsolation=isolated)
    one, two = (scene.add(conf, make_pod(), f"c{number}") for number in range(2))
    assert one.pod.ping(two.address(4), seconds=2 if isolated else 10) != isolated
    assert one.pod.ping(two.address(6), seconds=2 if isolated else 10) != isolated
    for attached in (one, two):
        assert attached.pod.ping(GATEWAYS[4])
        assert attached.pod.ping(GATEWAYS[6])
        assert scene.check(attached).code == 0


def test_isolated_and_open_ports_reach_each_other(scene: Scene, make_pod: MakePod) -> None:
    one = scene.add(netconf("bridge", portIsolation=True), make_pod(), "isolated")
    two = scene.add(netconf("bridge"), make_pod(), "open")
    assert one.pod.ping(two.address(4))
    assert two.pod.ping(one.address(4))


def test_interface_left_down(scene: Scene, pod: Namespace) -> None:
    conf = netconf("bridge", disableContainerInterface=True, isGateway=False)
    del conf["ipam"]
    attached = scene.add(conf, pod)
    link = pod.link("eth0")
    assert link is not None
    assert "UP" not in link["flags"]
    assert scene.check(attached).code == 0
    scene.delete(attached)
    assert scene.leftovers(pod) == []


def test_promiscuous_bridge(scene: Scene, pod: Namespace) -> None:
    scene.add(netconf("bridge", promiscMode=True), pod)
    link = scene.node.ns.link(BRIDGE)
    assert link is not None
    assert "PROMISC" in link["flags"]
    assert pod.ping(GATEWAYS[4])


def test_port_of_another_bridge_is_left_alone(scene: Scene, make_pod: MakePod) -> None:
    one: Attached = scene.add(netconf("bridge"), make_pod(), "c1")
    two = scene.add(netconf("bridge", name="other", bridge="pwbr1", ipam={"subnet": "10.88.0.0/24"}), make_pod(), "c1")  # fmt: skip  # noqa: E501
    scene.delete(one)
    assert two.pod.ping("10.88.0.1")
    assert scene.check(two).code == 0
