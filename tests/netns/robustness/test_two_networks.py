"""Two networks on one node, in one pod or with the same addresses, do not disturb each other."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import MODES, Conf, ipam, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]


def second_network(mode: str) -> Conf:
    ranges = [[{"subnet": "10.78.0.0/24"}], [{"subnet": "fd00:78::/64"}]]
    conf = netconf(mode, (4, 6), name="second", ipam=ipam(4, 6, ranges=ranges))
    return conf | ({"bridge": "pwbr1"} if mode == "bridge" else {})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keys", [{}, {"ipMasq": True}, {"hairpinMode": True}], ids=str)
def test_the_last_pod_of_the_node_needs_no_rules(
    scene: Scene, make_pod: MakePod, mode: str, keys: dict[str, bool]
) -> None:
    plain = netconf(mode, (4, 6), sourceCheck=False, hairpinMode=False)
    last = scene.add(plain, make_pod(), "last")
    scene.delete(scene.add(second_network(mode) | keys, make_pod(), "before"))
    scene.delete(last)
    assert scene.ruleset() == ""


@pytest.mark.parametrize("mode", MODES)
def test_two_default_routes_in_one_pod(scene: Scene, pod: Namespace, mode: str) -> None:
    """The kernel makes one multipath route of two IPv6 defaults; both are still there."""
    first = scene.add(netconf(mode, (4, 6)), pod, ifname="eth0")
    second = scene.add(second_network(mode), pod, ifname="net1")
    for attached in (first, second):
        answer = scene.check(attached)
        assert answer.code == 0, answer
    pod.run(["ip", "-6", "route", "del", "default", "via", "fd00:78::1", "dev", "net1"])
    assert scene.check(first).code == 0
    assert "::/0" in scene.check(second).json["msg"]


def test_the_same_address_behind_two_bridges(scene: Scene, make_pod: MakePod) -> None:
    mine = netconf("bridge", (4, 6))
    # Without a gateway of its own: the node can have the subnet on one bridge alone.
    other = mine | {"name": "other", "bridge": "pwbr1", "isGateway": False}
    first, second = scene.add(mine, make_pod(), "one"), scene.add(other, make_pod(), "two")
    assert first.address(4) == second.address(4)
    scene.delete(second)
    answer = scene.check(first)
    assert answer.code == 0, answer


@pytest.mark.parametrize(
    "wrong", [("metric", "51", "mtu", "1300"), ("metric", "50", "mtu", "1200")]
)
def test_check_sees_a_route_with_another_number(
    scene: Scene, pod: Namespace, wrong: tuple[str, ...]
) -> None:
    route = {"dst": "198.51.100.0/24", "priority": 50, "mtu": 1300}
    attached = scene.add(netconf("ptp", ipam=ipam(4, routes=[route])), pod)
    assert scene.check(attached).code == 0
    pod.run(["ip", "route", "flush", "198.51.100.0/24"])
    path = ["via", "10.77.0.1", "dev", "eth0"]
    pod.run(["ip", "route", "add", "198.51.100.0/24", *path, *wrong])
    assert "198.51.100.0/24" in scene.check(attached).json["msg"]
