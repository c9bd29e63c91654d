"""An attachment is (network, container ID, interface): equal in two is still another one."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import MODES, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]


def other_network(mode: str) -> Conf:
    return netconf(mode, name="other", bridge="pwbr1", ipam={"subnet": "10.88.0.0/24"})


def first_network(mode: str) -> Conf:
    return netconf(mode, ipam={"subnet": "10.77.0.0/24"})


@pytest.mark.parametrize("mode", MODES)
def test_one_container_in_two_networks(scene: Scene, pod: Namespace, mode: str) -> None:
    one = scene.add(first_network(mode), pod, "c1", "eth0")
    two = scene.add(other_network(mode), pod, "c1", "eth1")
    assert pod.ping("10.77.0.1")
    assert pod.ping("10.88.0.1")
    scene.delete(one)
    assert scene.links(pod) == {"lo", "eth1"}
    assert scene.check(two).code == 0
    assert pod.ping("10.88.0.1")
    scene.delete(two)
    assert [line for line in scene.leftovers(pod) if line != "node link pwbr1"] == []


@pytest.mark.parametrize("mode", MODES)
def test_one_container_twice_in_a_network(scene: Scene, pod: Namespace, mode: str) -> None:
    one = scene.add(first_network(mode), pod, "c1", "eth0")
    two = scene.add(first_network(mode), pod, "c1", "eth1")
    assert one.address(4) != two.address(4)
    assert one.host != two.host
    scene.delete(two)
    assert scene.links(pod) == {"lo", "eth0"}
    assert scene.check(one).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_two_containers_in_one_namespace(scene: Scene, pod: Namespace, mode: str) -> None:
    one = scene.add(first_network(mode), pod, "c1", "eth0")
    two = scene.add(first_network(mode), pod, "c2", "eth1")
    scene.delete(one)
    assert scene.links(pod) == {"lo", "eth1"}
    assert scene.check(two).code == 0


@pytest.mark.parametrize("mode", MODES)
def test_failed_add_of_another_network_costs_nothing(
    scene: Scene, pod: Namespace, mode: str
) -> None:
    """The same interface in a second network is refused; the DEL that follows spares the first."""
    one = scene.add(first_network(mode), pod, "c1", "eth0")
    refused = scene.call("ADD", other_network(mode), pod, "c1", "eth0")
    assert refused.json["code"] == 103
    assert scene.call("DEL", other_network(mode), pod, "c1", "eth0").code == 0
    assert scene.links(pod) == {"lo", "eth0"}
    assert scene.check(one).code == 0
    assert pod.ping("10.77.0.1")


@pytest.mark.parametrize("mode", MODES)
def test_delete_of_another_container_spares_this_one(
    scene: Scene, pod: Namespace, mode: str
) -> None:
    """A late DEL of a container that is gone, with a namespace path that was used again."""
    one = scene.add(first_network(mode), pod, "new", "eth0")
    assert scene.call("DEL", first_network(mode), pod, "old", "eth0").code == 0
    assert scene.check(one).code == 0
    assert pod.ping("10.77.0.1")


@pytest.mark.parametrize("mode", MODES)
def test_repeated_delete_spares_the_successor(scene: Scene, make_pod: MakePod, mode: str) -> None:
    """DEL of the first comes again after its address went to the second."""
    addresses = {"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}
    conf = netconf(mode, ipam=addresses, ipMasq=True)
    first = scene.add(conf, make_pod(), "first")
    scene.delete(first)
    second = scene.add(conf, make_pod(), "second")
    assert second.address(4) == first.address(4)
    scene.delete(first)
    scene.delete(first)
    assert scene.check(second).code == 0
    assert second.pod.ping("10.77.0.1")


@pytest.mark.parametrize("mode", MODES)
def test_containers_in_parallel(scene: Scene, make_pod: MakePod, mode: str) -> None:
    """Different containers come and go at once, in two networks, under equal names."""
    confs = (first_network(mode), other_network(mode))
    pods = [make_pod() for _ in range(8)]
    calls = [
        (conf, pod, f"c{number}", f"eth{which}",
         scene.start("ADD", conf, pod, f"c{number}", f"eth{which}"))
        for number, pod in enumerate(pods)
        for which, conf in enumerate(confs)
    ]  # fmt: skip
    made = []
    for conf, pod, container_id, ifname, call in calls:
        answer = call.result()
        assert answer.code == 0, answer
        made.append(Attached(pod, container_id, ifname, conf, answer.json))
    assert len({attached.address(4) for attached in made}) == 16
    for attached in made[::2]:
        scene.delete(attached)
    for attached in made[1::2]:
        assert attached.pod.ping("10.88.0.1")
        scene.delete(attached)
    left = [line for line in scene.leftovers(*pods) if line != "node link pwbr1"]
    assert left == []
