"""Pods on a bridge that other machines are on, too: only what pods send is masqueraded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.robustness.confs import Conf, netconf
from tests.netns.robustness.scene import DATA_DIR, Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
BRIDGE, SUBNET, ROUTER, MACHINE = "rvbr0", "192.168.1.0/24", "192.168.1.10", "192.168.1.50"


@pytest.fixture
def machine(scene: Scene, make_pod: MakePod) -> Namespace:
    """A machine of the LAN that the node routes for; the world knows the way back."""
    ns, node = make_pod(), scene.node.ns
    node.sysctl("ipv4/ip_forward", "1")
    node.ip_batch(
        f"link add {BRIDGE} address 02:00:00:00:01:0a type bridge stp_state 0 forward_delay 0\n"
        f"link set {BRIDGE} up\n"
        f"address add {ROUTER}/24 dev {BRIDGE}\n"
        f"link add lan0 master {BRIDGE} type veth peer name eth0 netns {ns.name}\n"
        "link set lan0 up\n"
    )
    ns.ip_batch(
        "link set lo up\n"
        "link set eth0 up\n"
        f"address add {MACHINE}/24 dev eth0\n"
        f"route add default via {ROUTER}\n"
    )
    scene.node.underlay.ns.ip_batch(f"route add {SUBNET} via {scene.node.address(4)}")
    return ns


def lan(**keys: str) -> Conf:
    section = {
        "type": "host-local",
        "subnet": SUBNET,
        "rangeStart": "192.168.1.200",
        "gateway": ROUTER,
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(DATA_DIR),
        **keys,
    }
    conf = netconf("bridge", bridge=BRIDGE, isGateway=False, ipMasq=True, ipam=section)
    return {**conf, "ipMasqBackend": "nftables"}


def seen_of(scene: Scene, ns: Namespace) -> str:
    """The address that the world sees of what a namespace sends."""
    underlay = scene.node.underlay
    return ns.exchange(underlay.ns.echo("udp", underlay.gateway(4)))


@pytest.fixture(params=["own", pytest.param("other", marks=pytest.mark.needs("newest-reference"))])
def ipam_path(request: pytest.FixtureRequest, scene: Scene) -> dict[str, str]:
    """CNI_PATH, by which `host-local` is podwire's IPAM or the reference's."""
    if request.param == "own":
        return {}
    folder: Path = request.getfixturevalue("newest_reference_bin")
    return {"cni_path": str(folder)}


def test_other_machines_keep_their_address(
    scene: Scene, machine: Namespace, make_pod: MakePod, ipam_path: dict[str, str]
) -> None:
    node = scene.node.address(4)
    one = scene.add(lan(), make_pod(), "one", **ipam_path)
    two = scene.add(lan(), make_pod(), "two", **ipam_path)
    assert seen_of(scene, one.pod) == seen_of(scene, two.pod) == node
    assert seen_of(scene, machine) == MACHINE
    assert one.pod.exchange(machine.echo("udp", MACHINE)) == one.address(4)
    assert scene.check(one, **ipam_path).code == 0
    scene.delete(one, **ipam_path)
    assert seen_of(scene, two.pod) == node
    assert scene.check(two, **ipam_path).code == 0
    scene.delete(two, **ipam_path)
    assert "rules" not in str(scene.leftovers(one.pod, two.pod))
    assert scene.rows() == {}


@pytest.mark.needs("newest-reference")
def test_what_another_ipam_takes_back_is_a_machines_again(
    scene: Scene, machine: Namespace, make_pod: MakePod, newest_reference_bin: Path
) -> None:
    """Of another IPAM plugin podwire knows no range: the next owner need not be a pod."""
    path = {"cni_path": str(newest_reference_bin)}
    one = scene.add(lan(), make_pod(), "one", **path)
    scene.add(lan(), make_pod(), "two", **path)
    scene.delete(one, **path)
    machine.ip_batch(
        "address flush dev eth0\n"
        f"address add {one.address(4)}/24 dev eth0\n"
        f"route add default via {ROUTER}\n"
    )
    assert seen_of(scene, machine) == one.address(4)


def as_earlier(scene: Scene) -> None:
    """The network as an earlier version recorded it and made its rules: by its subnet."""
    scene.query("UPDATE network SET record = ?", json.dumps([SUBNET]))
    masqueraded = "inet podwire masquerade4"
    scene.node.ns.run(["nft", f"flush set {masqueraded}; add element {masqueraded} {{{SUBNET}}}"])


def test_a_network_of_an_earlier_version(
    scene: Scene, machine: Namespace, make_pod: MakePod
) -> None:
    """Its pods stay masqueraded, in the ranges of today's configuration or not."""
    node = scene.node.address(4)
    one = scene.add(lan(), make_pod(), "one")
    as_earlier(scene)
    assert scene.check(one).code == 0
    assert seen_of(scene, one.pod) == node
    assert seen_of(scene, machine) != MACHINE
    two = scene.add(lan(rangeStart="192.168.1.220"), make_pod(), "two")
    assert seen_of(scene, one.pod) == seen_of(scene, two.pod) == node
    assert seen_of(scene, machine) == MACHINE
    assert scene.check(one).code == scene.check(two).code == 0
    scene.delete(one)
    assert one.address(4) not in scene.ruleset()
    assert seen_of(scene, two.pod) == node


def lose_store() -> None:
    for file in DATA_DIR.glob("podwire.db*"):
        file.unlink()


def test_after_the_store_is_lost(scene: Scene, machine: Namespace, make_pod: MakePod) -> None:
    one = scene.add(lan(), make_pod(), "one")
    scene.on_files(lose_store)
    two = scene.add(netconf("ptp", name="second", ipMasq=True), make_pod(), "two")
    assert seen_of(scene, one.pod) == seen_of(scene, two.pod) == scene.node.address(4)
    assert seen_of(scene, machine) == MACHINE


@pytest.mark.parametrize("late", [False, True], ids=["first", "later"])
def test_beside_another_store(
    scene: Scene, machine: Namespace, make_pod: MakePod, late: bool
) -> None:
    """Of a network in another store the marks of links tell the addresses of its pods.

    late: the other store is made when there is a pod, and takes it over.
    """
    other = lan(dataDir="/var/lib/podwire-second")
    if not late:
        assert scene.call("STATUS", netconf("ptp")).code == scene.call("STATUS", other).code == 0
    one = scene.add(other, make_pod(), "one")
    second = netconf("ptp", name="second", ipMasq=True)
    two, three = (scene.add(second, make_pod(), name) for name in ("two", "three"))
    assert "192.168.1.200-192.168.1.254" in scene.ruleset()
    four = scene.add(other, make_pod(), "four")
    pods = [each.pod for each in (one, two, three, four)]
    assert {seen_of(scene, pod) for pod in pods} == {scene.node.address(4)}
    assert seen_of(scene, machine) == MACHINE
    scene.delete(four)
    scene.delete(three)
    assert {seen_of(scene, pod) for pod in pods[:2]} == {scene.node.address(4)}
    assert seen_of(scene, machine) == MACHINE
