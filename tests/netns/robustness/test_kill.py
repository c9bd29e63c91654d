"""kill -9 at any instant: DEL or GC then leaves nothing, and what runs goes on running."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.netns.robustness.calls import At
from tests.netns.robustness.confs import BRIDGE, MODES, Conf, netconf
from tests.netns.robustness.scene import DATA_DIR, Scene
from tests.pytest_netns import Namespace

KILLS = {"bridge": 50, "ptp": 25}
"""Instants, spread over a whole call, at which it is killed: ptp does less of its own."""

SIGKILL = -9


def full_conf(mode: str) -> Conf:
    more: dict[str, Any] = {"macspoofchk": True} if mode == "bridge" else {}
    return netconf(mode, (4, 6), ipMasq=True, **more)


def instants(
    scene: Scene, verb: str, conf: Conf, pod: Namespace | str, count: int, **keys: Any
) -> Iterator[At]:
    """Instants over the whole run of a verb; the call is made once, to count them."""
    answer = scene.call(verb, conf, pod, at=At(), **keys)
    assert answer.code == 0, answer
    assert answer.events > count
    for number in range(count):
        yield At(event=1 + number * answer.events // count)


def kill(scene: Scene, verb: str, conf: Conf, pod: Namespace | str, at: At, **keys: Any) -> None:
    """Make a call that dies at the instant.

    One run is shorter than another (its bridge is there, its address in another queue, or that
    whose instants were counted had to wait and look again): for the last of the instants it may
    be over. Then its end is the instant.
    """
    answer = scene.call(verb, conf, pod, at=at, **keys)
    assert answer.code == SIGKILL or (answer.code == 0 and answer.events > at.event / 4), answer


def remove_database() -> None:
    for path in DATA_DIR.iterdir():
        path.unlink()


def forget_bridge(scene: Scene) -> None:
    """So that the next ADD makes it."""
    if BRIDGE in scene.links():
        scene.node.ns.ip_batch(f"link delete {BRIDGE}")


@pytest.mark.parametrize("mode", MODES)
def test_add_then_delete(scene: Scene, pod: Namespace, mode: str) -> None:
    conf = full_conf(mode)
    assert scene.call("STATUS", conf).code == 0, "the database is made once, and not by an ADD here"
    for number, at in enumerate(instants(scene, "ADD", conf, pod, KILLS[mode])):
        assert scene.call("DEL", conf, pod if number % 2 else "").code == 0
        assert scene.leftovers(pod) == [], f"before instant {at.event}"
        forget_bridge(scene)
        kill(scene, "ADD", conf, pod, at)
    answer = scene.call("DEL", conf, pod)
    assert answer.code == 0
    assert "damaged" not in answer.stderr
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_add_then_gc(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf = full_conf(mode)
    stays, pod = scene.add(conf, make_pod(), "stays"), make_pod()
    for at in instants(scene, "ADD", conf, pod, KILLS[mode] // 2):
        assert scene.gc(conf, [("stays", "eth0")]).code == 0
        assert scene.links(pod) == {"lo"}, f"before instant {at.event}"
        kill(scene, "ADD", conf, pod, at)
    assert scene.gc(conf, [("stays", "eth0")]).code == 0
    assert scene.check(stays).code == 0
    assert len(scene.rows()["allocation"]) == 2
    scene.delete(stays)
    assert scene.leftovers(pod, stays.pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_delete_then_delete(scene: Scene, pod: Namespace, mode: str) -> None:
    conf = full_conf(mode)
    scene.add(conf, pod)
    for number, at in enumerate(instants(scene, "DEL", conf, pod, KILLS[mode])):
        scene.add(conf, pod)
        kill(scene, "DEL", conf, pod, at)
        assert scene.call("DEL", conf, pod if number % 2 else "").code == 0
        assert scene.leftovers(pod) == [], f"after instant {at.event}"


@pytest.mark.parametrize("mode", MODES)
def test_gc_then_gc(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf, pods = full_conf(mode), [make_pod(), make_pod()]
    nothing_valid = {**conf, "cni.dev/valid-attachments": None}
    for number, pod in enumerate(pods):
        scene.add(conf, pod, f"c{number}")
    for at in instants(scene, "GC", nothing_valid, "", KILLS[mode] // 4):
        for number, pod in enumerate(pods):
            scene.add(conf, pod, f"c{number}")
        kill(scene, "GC", nothing_valid, "", at)
        assert scene.gc(conf, None).code == 0
        assert scene.leftovers(*pods) == [], f"after instant {at.event}"


@pytest.mark.parametrize("mode", MODES)
def test_while_the_database_is_rebuilt(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str
) -> None:
    conf = full_conf(mode)
    stays, pod = scene.add(conf, make_pod(), "stays"), make_pod()
    address = stays.address(4)
    scene.on_files(remove_database)
    for at in instants(scene, "ADD", conf, pod, KILLS[mode] // 4):
        assert scene.call("DEL", conf, pod).code == 0
        scene.on_files(remove_database)
        kill(scene, "ADD", conf, pod, at)
        assert scene.call("DEL", conf, pod).code == 0
        fresh = scene.add(conf, pod)
        assert fresh.address(4) != address, f"after instant {at.event}"
        assert stays.pod.ping("10.77.0.1")
    assert scene.call("DEL", conf, pod).code == 0
    scene.delete(stays)
    assert scene.leftovers(pod, stays.pod) == []
