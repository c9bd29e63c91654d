"""Many pods come and go, and nothing accumulates."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.robustness.calls import SEARCH_PATH
from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace
from tests.pytest_netns.namespace import run

PAIRS = 320
"""ADD/DEL pairs for each mode: each address of a range is freed, and many again."""

EXECUTED_PAIRS = 12


@pytest.mark.parametrize("mode", MODES)
def test_in_one_process(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf = netconf(mode, (4, 6), ipMasq=True, macspoofchk=mode == "bridge")
    stays = scene.add(conf, make_pod(), "stays")
    pods = [make_pod() for _ in range(4)]
    before = scene.state(stays.pod, *pods)
    done = scene.node.run(
        [sys.executable, "-I", Path(__file__).with_name("soak.py"), str(PAIRS)],
        stdin=json.dumps({"conf": conf, "pods": [str(pod.path) for pod in pods]}),
    )
    seen = json.loads(done.stdout)
    assert seen["before"] == seen["after"]
    assert before.changes_to(scene.state(stays.pod, *pods)) == []
    assert scene.check(stays).code == 0
    assert stays.pod.ping("10.77.0.1")
    freed = scene.query("SELECT count(*) FROM freed WHERE length(address) = 5")[0][0]
    assert freed <= 254, "the queue of freed addresses grows"
    scene.delete(stays)
    assert scene.leftovers(stays.pod, *pods) == []


@pytest.mark.parametrize("mode", MODES)
def test_with_the_executable(scene: Scene, pod: Namespace, podwire_bin: Path, mode: str) -> None:
    """The installed executable, one process for each call; the node is empty in between."""
    conf = netconf(mode, (4, 6), ipMasq=True)
    env = {"CNI_IFNAME": "eth0", "CNI_NETNS": str(pod.path), "CNI_PATH": str(podwire_bin)}
    for number in range(EXECUTED_PAIRS):
        for verb in ("ADD", "DEL"):
            more = {"CNI_COMMAND": verb, "CNI_CONTAINERID": f"c{number}", "PATH": SEARCH_PATH}
            run(
                [*scene.node.enter, podwire_bin / "podwire"],
                stdin=json.dumps(conf),
                env={**env, **more},
            )
    assert scene.leftovers(pod) == []
