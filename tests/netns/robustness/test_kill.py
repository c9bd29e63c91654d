"""kill -9 at any instant: DEL or GC then leaves nothing, and what runs goes on running."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.netns.robustness.calls import At
from tests.netns.robustness.confs import BRIDGE, MODES, Conf, netconf
from tests.netns.robustness.scene import DATA_DIR, Scene
from tests.pytest_netns import Namespace

KILLS = 70
"""Instants, spread over a whole call, at which it is killed."""

SHORTER = 40
"""Instants by which one run may be shorter than another: how often the kernel is asked varies."""

SIGKILL = -9


def full_conf(mode: str) -> Conf:
    more: dict[str, Any] = {"macspoofchk": True} if mode == "bridge" else {}
    return netconf(mode, (4, 6), ipMasq=True, **more)


def instants(scene: Scene, verb: str, conf: Conf, pod: Namespace) -> Iterator[At]:
    """Instants over the whole run of a verb; the call is made once, to count them.

    The first call on a node is longer than the others: it makes the database.
    """
    assert scene.call("STATUS", conf).code == 0
    answer = scene.call(verb, conf, pod, at=At())
    assert answer.code == 0, answer
    assert answer.events > KILLS
    for number in range(KILLS):
        yield At(event=1 + number * (answer.events - SHORTER) // KILLS)


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
    for number, at in enumerate(instants(scene, "ADD", conf, pod)):
        assert scene.call("DEL", conf, pod if number % 2 else "").code == 0
        assert scene.leftovers(pod) == [], f"before instant {at.event}"
        if number % 4 == 0:
            forget_bridge(scene)
        assert scene.call("ADD", conf, pod, at=at).code == SIGKILL
    answer = scene.call("DEL", conf, pod)
    assert answer.code == 0
    assert "damaged" not in answer.stderr
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_add_then_gc(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf = full_conf(mode)
    stays, pod = scene.add(conf, make_pod(), "stays"), make_pod()
    for at in instants(scene, "ADD", conf, pod):
        assert scene.gc(conf, [("stays", "eth0")]).code == 0
        assert scene.links(pod) == {"lo"}, f"before instant {at.event}"
        assert scene.call("ADD", conf, pod, at=at).code == SIGKILL
    assert scene.gc(conf, [("stays", "eth0")]).code == 0
    assert scene.check(stays).code == 0
    assert len(scene.rows()["allocation"]) == 2
    scene.delete(stays)
    assert scene.leftovers(pod, stays.pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_delete_then_delete(scene: Scene, pod: Namespace, mode: str) -> None:
    conf = full_conf(mode)
    scene.add(conf, pod)
    for number, at in enumerate(instants(scene, "DEL", conf, pod)):
        scene.add(conf, pod)
        assert scene.call("DEL", conf, pod, at=at).code == SIGKILL
        assert scene.call("DEL", conf, pod if number % 2 else "").code == 0
        assert scene.leftovers(pod) == [], f"after instant {at.event}"


@pytest.mark.parametrize("mode", MODES)
def test_gc_then_gc(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf, pods = full_conf(mode), [make_pod(), make_pod()]
    nothing_valid = {**conf, "cni.dev/valid-attachments": None}
    for number, pod in enumerate(pods):
        scene.add(conf, pod, f"c{number}")
    for at in list(instants(scene, "GC", nothing_valid, pods[0]))[::4]:
        for number, pod in enumerate(pods):
            scene.add(conf, pod, f"c{number}")
        assert scene.call("GC", nothing_valid, at=at).code == SIGKILL
        assert scene.gc(conf, None).code == 0
        assert scene.leftovers(*pods) == [], f"after instant {at.event}"


@pytest.mark.parametrize("mode", MODES)
def test_while_the_database_is_rebuilt(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str
) -> None:
    conf = full_conf(mode)
    stays, pod = scene.add(conf, make_pod(), "stays"), make_pod()
    address = stays.address(4)
    for at in list(instants(scene, "ADD", conf, pod))[::4]:
        assert scene.call("DEL", conf, pod).code == 0
        scene.on_files(remove_database)
        assert scene.call("ADD", conf, pod, at=at).code == SIGKILL
        assert scene.call("DEL", conf, pod).code == 0
        fresh = scene.add(conf, pod)
        assert fresh.address(4) != address, f"after instant {at.event}"
        assert stays.pod.ping("10.77.0.1")
    assert scene.call("DEL", conf, pod).code == 0
    scene.delete(stays)
    assert scene.leftovers(pod, stays.pod) == []
