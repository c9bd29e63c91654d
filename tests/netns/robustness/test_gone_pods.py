"""Pods that ended without a DEL, in this boot, hold no address when one is needed.

A kind node is a container: when it is started anew its pods' namespaces are gone, and the boot ID
is the same.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.netns.robustness.confs import MODES, Conf, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
FIVE = {"subnet": "10.77.0.0/29"}


def conf_of(mode: str, **keys: Any) -> Conf:
    return netconf(mode, ipMasq=True, ipam={**FIVE, **keys})


def fill(scene: Scene, make_pod: MakePod, mode: str) -> list[Namespace]:
    pods = [make_pod() for _ in range(5)]
    for number, pod in enumerate(pods):
        scene.add(conf_of(mode), pod, f"c{number}")
    return pods


@pytest.mark.parametrize("mode", MODES)
def test_a_full_range(scene: Scene, make_pod: MakePod, mode: str) -> None:
    pods = fill(scene, make_pod, mode)
    for pod in pods[1:]:
        pod.vanish()
    new = make_pod()
    assert scene.call("STATUS", conf_of(mode)).code == 0
    attached = scene.add(conf_of(mode), new, "new")
    assert new.ping("10.77.0.1")
    assert pods[0].ping(attached.address(4))
    assert {row[1] for row in scene.rows()["attachment"]} == {"c0", "new"}
    scene.delete(attached)
    assert scene.call("DEL", conf_of(mode), pods[0], "c0").code == 0
    assert scene.leftovers(pods[0], new) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_requested_address(scene: Scene, make_pod: MakePod, mode: str) -> None:
    pod = make_pod()
    scene.add(conf_of(mode), pod, "first", args="IP=10.77.0.4")
    pod.vanish()
    scene.add(conf_of(mode), make_pod(), "second", args="IP=10.77.0.4")
    assert {row[2] for row in scene.rows()["allocation"]} == {"second"}


@pytest.mark.parametrize("what", ["renamed", "without an alias", "down"])
def test_pods_that_live_keep_theirs(scene: Scene, make_pod: MakePod, what: str) -> None:
    pods = fill(scene, make_pod, "ptp")
    host = next(name for name in scene.links() if name[:2] == "pw")
    rename = f"link set {host} down\nlink set {host} name other0"
    commands = {
        "renamed": rename,
        "without an alias": f'link set {host} alias ""\n{rename}',
        "down": f"link set {host} down",
    }
    scene.node.ns.ip_batch(commands[what])
    assert scene.call("ADD", conf_of("ptp"), make_pod(), "late").json["code"] == 100
    assert len(scene.rows()["allocation"]) == 5
    assert all(scene.links(pod) == {"lo", "eth0"} for pod in pods)


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "of a daemon in a container"])
def test_an_add_in_flight_keeps_its_address(scene: Scene, make_pod: MakePod, seen: bool) -> None:
    """It has written its record, and not made its link yet.

    A daemon in a container does not see the namespaces of the node, nor their folder.
    """
    pod = make_pod()
    scene.add(conf_of("ptp"), pod, "c0")
    if not seen:
        path = "UPDATE attachment SET record = replace(record, ?, '/nowhere/pod')"
        scene.query(path, str(pod.path))
    scene.node.ns.ip_batch("\n".join(f"link delete {n}" for n in scene.links() if n[:2] == "pw"))
    for number in range(1, 5):
        scene.add(conf_of("ptp"), make_pod(), f"c{number}")
    assert scene.call("ADD", conf_of("ptp"), make_pod(), "late").json["code"] == 100
    scene.query("UPDATE allocation SET created_at = created_at - 200 WHERE container_id = 'c0'")
    scene.add(conf_of("ptp"), make_pod(), "late")
