"""A pod on several networks, each of which gets all of its port mappings."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.host_ports.test_host_ports import BOTH, conf, mapping, outside
from tests.netns.robustness.calls import At
from tests.netns.robustness.confs import MODES, Conf, ipam
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
PORTS = (mapping(8080, 80), mapping(8081, 80, hostIP="0.0.0.0"))  # noqa: S104


def network(mode: str, number: int, *mappings: dict[str, Any], **keys: Any) -> Conf:
    ranges = [[{"subnet": f"10.{77 + number}.0.0/24"}], [{"subnet": f"fd00:{77 + number}::/64"}]]
    bridge = {"bridge": f"pwbr{number}"} if mode == "bridge" else {}
    named = {"name": f"net{number}", "ipam": ipam(4, 6, ranges=ranges)}
    return conf(mode, *(mappings or PORTS), **named, **bridge, **keys)


def attach(scene: Scene, pod: Namespace, mode: str, *numbers: int) -> list[Attached]:
    """What each network gives is sent back by it."""
    made = []
    for number in numbers:
        made.append(scene.add(network(mode, number), pod, ifname=f"eth{number}"))
        for family in BOTH:
            address, table = made[-1].address(family), str(100 + number)
            gateway = address.removesuffix("2") + "1"
            route = ["default", "via", gateway, "dev", f"eth{number}", "table", table]
            pod.run(["ip", f"-{family}", "rule", "add", "from", address, "lookup", table])
            pod.run(["ip", f"-{family}", "route", "add", *route])
    return made


def serves(scene: Scene, attached: Attached, port: int = 8080, family: Any = None) -> bool:
    """Whether the node's port leads to that attachment, by all families."""
    found = []
    for each in (family,) if family else BOTH:
        server = attached.pod.echo("tcp", attached.address(each), 80)
        found.append(outside(scene).reaches(server, to=(scene.node.address(each), port)))
        server.close()
    assert len({*found}) == 1
    return found[0]


@pytest.mark.parametrize("mode", MODES)
def test_one_after_the_other_has_the_ports(scene: Scene, pod: Namespace, mode: str) -> None:
    """In the order in which they asked, whatever the networks' names are."""
    left = attach(scene, pod, mode, 1, 0, 2)
    while left:
        assert [scene.check(each).code for each in left] == [0] * len(left)
        assert [serves(scene, each) for each in left] == [True, *[False] * (len(left) - 1)]
        assert serves(scene, left[0], 8081, 4)
        # The last but one of three: a middle one that goes leaves the ports where they are.
        scene.delete(left.pop(1 if len(left) == 3 else 0))
    for number in range(3):
        assert f"eth{number}" not in scene.links(pod)
    assert "8080" not in scene.ruleset()
    assert scene.rows() == {}


def test_what_the_first_network_lacks_is_the_second_ones(scene: Scene, pod: Namespace) -> None:
    of_ipv4 = network("ptp", 0, mapping(8080, 80, hostIP="0.0.0.0"))  # noqa: S104
    first = scene.add(of_ipv4, pod)
    second = attach(scene, pod, "ptp", 1)[0]
    assert serves(scene, second, family=6)
    assert serves(scene, first, family=4)
    assert serves(scene, second, 8081, 4)


@pytest.mark.parametrize("instant", ["_create_pair", "_configure_pod", "add_elements"])
def test_an_attachment_in_the_making_takes_the_ports_over(
    scene: Scene, pod: Namespace, instant: str
) -> None:
    """The container is taken off its first network while it is put on its second one."""
    first, conf = scene.add(network("ptp", 0), pod), network("ptp", 1)
    at = At(function=f"attach.py:{instant}", stop=True)
    making = scene.start("ADD", conf, pod, ifname="eth1", at=at)
    making.wait_stopped()
    scene.delete(first)
    making.resume()
    answer = making.result()
    assert answer.code == 0, answer
    second = Attached(pod, "c1", "eth1", conf, answer.json)
    assert scene.check(second).code == 0
    assert serves(scene, second, family=4)
    scene.delete(second)
    assert scene.leftovers(pod) == []


def test_another_pod_is_still_refused(scene: Scene, make_pod: MakePod) -> None:
    first, second = attach(scene, make_pod(), "ptp", 0, 1)
    answer = scene.call("ADD", network("ptp", 2), make_pod(), "c2")
    assert answer.json["code"] == 106
    assert "host port 8080/tcp is held by c1 (eth0 on net0)" in answer.json["msg"]
    scene.delete(first)
    answer = scene.call("ADD", network("ptp", 2), make_pod(), "c2")
    assert "host port 8080/tcp is held by c1 (eth1 on net1)" in answer.json["msg"]
    assert scene.check(second).code == 0


def test_gc_of_the_first(scene: Scene, pod: Namespace) -> None:
    first, second = attach(scene, pod, "ptp", 0, 1)
    assert scene.gc(first.conf, []).code == 0
    assert scene.check(second).code == 0
    assert serves(scene, second)


def test_a_pod_that_is_gone_leaves_all(scene: Scene, make_pod: MakePod) -> None:
    """It ended without a DEL; the ports are not passed on within it."""
    gone = make_pod()
    attach(scene, gone, "ptp", 0, 1)
    gone.vanish()
    one = scene.add(network("ptp", 2), make_pod(), "c2")
    assert scene.check(one).code == 0
    assert {row[1] for row in scene.rows()["attachment"]} == {"c2"}


def test_an_add_that_fails_takes_no_port_along(scene: Scene, pod: Namespace) -> None:
    """The second network's ADD fails late, and its DEL finds nothing to do."""
    (first,) = attach(scene, pod, "ptp", 0)
    scene.node.ns.ip_batch("route add unreachable 10.78.0.2/32")
    before = scene.state(pod)
    answer = scene.call("ADD", network("ptp", 1), pod, ifname="eth1")
    assert "another pod of this node has the address" in answer.json["msg"]
    assert before.changes_to(scene.state(pod)) == []
    assert scene.call("DEL", network("ptp", 1), pod, ifname="eth1").code == 0
    assert before.changes_to(scene.state(pod)) == []
    assert serves(scene, first)
