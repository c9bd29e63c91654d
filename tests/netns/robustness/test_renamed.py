"""A network gets another name while its pods run: `conflist.name` changes, or the daemon's
configuration takes the place of one that was written by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import GATEWAYS, MODES, Conf, netconf
from tests.netns.robustness.scene import Attached, Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
BOTH = (4, 6)
SMALL = {"subnet": "10.77.0.0/29"}


def named(name: str, mode: str, **keys: Any) -> Conf:
    return netconf(mode, (4, 6), **{"name": name, "ipMasq": True, **keys})


def attach(
    scene: Scene, make_pod: MakePod, number: int, name: str, mode: str, **keys: Any
) -> list[Attached]:
    conf = named(name, mode, **keys)
    return [scene.add(conf, make_pod(), f"{name}{n}") for n in range(number)]


@pytest.mark.parametrize("mode", MODES)
def test_no_new_pod_gets_the_address_of_one_that_runs(
    scene: Scene, make_pod: MakePod, mode: str
) -> None:
    pods = attach(scene, make_pod, 3, "before", mode) + attach(scene, make_pod, 3, "after", mode)
    for family in (4, 6):
        assert len({each.address(family) for each in pods}) == len(pods)
        assert all(each.pod.ping(GATEWAYS[family]) for each in pods)
    assert pods[-1].pod.ping(pods[0].address(4))
    assert [scene.check(each).code for each in pods] == [0] * len(pods)
    for each in pods:
        scene.delete(each)
    assert scene.leftovers(*(each.pod for each in pods)) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pod_is_there", [True, False], ids=["pod", "no pod"])
def test_a_pod_is_deleted_by_the_new_name(
    scene: Scene, make_pod: MakePod, mode: str, pod_is_there: bool
) -> None:
    """As containerd does it: by the configuration that is there now, without prevResult."""
    ports = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    goes, stays = attach(scene, make_pod, 2, "before", mode)
    scene.delete(goes)
    scene.add(named("before", mode, runtimeConfig=ports), goes.pod, "before0")
    second = scene.add(named("before", mode), stays.pod, "before0", "eth1")
    if not pod_is_there:
        goes.pod.vanish()
    netns = goes.pod if pod_is_there else ""
    assert scene.call("DEL", named("after", mode), netns, "before0").code == 0
    assert {row[1:3] for row in scene.rows()["attachment"]} == {
        ("before0", "eth1"), ("before1", "eth0"),
    }  # fmt: skip
    assert "8080" not in scene.ruleset()
    if pod_is_there:
        assert scene.links(goes.pod) == {"lo"}
    assert [scene.check(each).code for each in (stays, second)] == [0, 0]


@pytest.mark.parametrize("mode", MODES)
def test_a_range_that_pods_of_the_former_name_fill(
    scene: Scene, make_pod: MakePod, mode: str
) -> None:
    former = attach(scene, make_pod, 5, "before", mode, ipam=SMALL)
    conf = named("after", mode, ipam=SMALL)
    answer = scene.call("ADD", conf, make_pod(), "new")
    assert answer.json["code"] == 100
    assert "of container before" in answer.json["msg"]
    assert "on network before" in answer.json["msg"]
    asked = {"args": {"cni": {"ips": [former[2].address(4)]}}}
    answer = scene.call("ADD", {**conf, **asked}, make_pod(), "new")
    assert answer.json["code"] == 105
    scene.delete(former[1])
    assert scene.add(conf, make_pod(), "new").address(4) == former[1].address(4)
    former[2].pod.vanish()
    assert scene.add({**conf, **asked}, make_pod(), "newer").address(4) == former[2].address(4)


def test_networks_apart_may_have_one_subnet(scene: Scene, make_pod: MakePod) -> None:
    """Each on a bridge of its own, which the node has no address on."""
    one, two = (
        scene.add(
            named(name, "bridge", bridge=f"pwbr{n}", isGateway=False, ipMasq=False, ipam=SMALL),
            make_pod(),
            name,
        )
        for n, name in enumerate(("one", "two"))
    )
    assert one.address(4) == two.address(4)
