"""A runtime that loses patience: DEL while ADD is still running."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.calls import At
from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

BEFORE = {
    # Functions of ADD after its commit, in order; it is stopped when it enters them.
    "masquerade rules": "network_rules.py:ensure_masquerade",
    "kernel work": "attach.py:attach",
    "the pair": "attach.py:_create_pair",
    "the node's end": "attach.py:_configure_node",
    "the pod's end": "attach.py:_configure_pod",
    "hairpin members": "attach.py:add_elements",
    "the last look": "add.py:_check_still_desired",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("instant", BEFORE)
@pytest.mark.parametrize("neighbours", [0, 1], ids=["alone", "with a neighbour"])
def test_delete_overtakes_add(
    scene: Scene,
    make_pod: Callable[[], Namespace],
    mode: str,
    instant: str,
    neighbours: int,
) -> None:
    conf, pod = netconf(mode, (4, 6), ipMasq=True), make_pod()
    others = [scene.add(conf, make_pod(), f"other{number}") for number in range(neighbours)]
    running = scene.start("ADD", conf, pod, at=At(function=BEFORE[instant], stop=True))
    running.wait_stopped()
    assert scene.call("DEL", conf, pod).code == 0
    running.resume()
    answer = running.result()
    assert answer.json["code"] in (11, 101), answer
    for other in others:
        assert scene.check(other).code == 0
        scene.delete(other)
    assert scene.leftovers(pod, *(other.pod for other in others)) == []


@pytest.mark.parametrize("mode", MODES)
def test_gc_overtakes_add(scene: Scene, pod: Namespace, mode: str) -> None:
    """A GC whose list was made before the ADD began takes the attachment away whole."""
    conf = netconf(mode, (4, 6), ipMasq=True)
    running = scene.start("ADD", conf, pod, at=At(function="attach.py:_create_pair", stop=True))
    running.wait_stopped()
    assert scene.gc(conf, None).code == 0
    running.resume()
    assert running.result().json["code"] in (11, 101)
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_address_of_an_overtaken_add_is_free(
    scene: Scene, make_pod: Callable[[], Namespace], mode: str
) -> None:
    """The address goes to the next pod while the overtaken ADD still believes to have it."""
    one = {"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.9", "rangeEnd": "10.77.0.9"}
    conf, late, pod = netconf(mode, ipam=one, ipMasq=True), make_pod(), make_pod()
    running = scene.start(
        "ADD", conf, late, "late", at=At(function="attach.py:_create_pair", stop=True)
    )
    running.wait_stopped()
    assert scene.call("DEL", conf, late, "late").code == 0
    attached = scene.add(conf, pod)
    running.resume()
    assert running.result().code != 0
    assert scene.check(attached).code == 0, "the overtaken ADD took the new pod's route or rule"
    assert pod.ping("10.77.0.1")
    scene.delete(attached)
    assert scene.leftovers(late, pod) == []
