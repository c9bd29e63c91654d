"""A range without a free address: who holds it, and what to do."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

SEVEN = {"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.2", "rangeEnd": "10.77.0.8"}


@pytest.mark.parametrize("mode", MODES)
def test_full_range(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf = netconf(mode, ipam=SEVEN, ipMasq=True)
    held = [scene.add(conf, make_pod(), f"holder{number}") for number in range(7)]
    pod = make_pod()
    before = scene.state(pod)
    error = scene.call("ADD", conf, pod, "late").json
    assert before.changes_to(scene.state(pod)) == []
    assert error["code"] == 100
    assert "7 of 7 are allocated" in error["msg"]
    assert "network robust" in error["msg"]
    for number, holder in enumerate(held):
        told = f"{holder.address(4)} to container holder{number} interface eth0 for "
        assert (told in error["details"]) == (number < 5), error["details"]
    assert "podwire-ipam list" in error["details"]
    assert "widen the range" in error["details"]

    status = scene.call("STATUS", conf)
    assert status.json["code"] == 50
    assert "7 allocated" in status.json["msg"]

    scene.delete(held[3])
    assert scene.call("STATUS", conf).code == 0
    late = scene.add(conf, pod, "late")
    assert late.address(4) == held[3].address(4)
    assert pod.ping("10.77.0.1")
    assert held[0].pod.ping(late.address(4))


def test_gc_makes_room(scene: Scene, make_pod: Callable[[], Namespace]) -> None:
    conf = netconf("ptp", ipam=SEVEN)
    for number in range(7):
        scene.add(conf, make_pod(), f"holder{number}")
    assert scene.call("ADD", conf, make_pod(), "late").json["code"] == 100
    assert scene.gc(conf, [("holder0", "eth0")]).code == 0
    assert scene.add(conf, make_pod(), "late").address(4) != "10.77.0.2"
    assert len(scene.rows()["allocation"]) == 2


def test_resting_addresses_are_told_apart(scene: Scene, pod: Namespace) -> None:
    one = {"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}
    conf = netconf("ptp", ipam={**one, "restPeriod": 3600})
    scene.delete(scene.add(conf, pod))
    error = scene.call("ADD", conf, pod).json
    assert error["code"] == 11
    assert "1 of 1" in error["msg"]
    assert "restPeriod 3600 s" in error["details"]
    conf = netconf("ptp", ipam=one)
    assert scene.add(conf, pod).address(4) == "10.77.0.9"
