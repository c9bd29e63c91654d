"""A call that has the store locked keeps all others waiting, and does no more then than it must."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.robustness.confs import MODES, Conf, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace


def with_port(conf: Conf, port: int) -> Conf:
    """The configuration for a pod that has a port of the node."""
    mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
    return {**conf, "runtimeConfig": {"portMappings": [mapping]}}


@pytest.mark.parametrize("mode", MODES)
def test_no_module_is_loaded(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    """Dozens of pods may start at once where no daemon runs."""
    pod, conf = make_pod(), netconf(mode, (4, 6), ipMasq=True)
    scene.add(with_port(conf, 8081), make_pod(), "stays")  # the first pod has all rules made
    calls = [(verb, "podwire", conf) for verb in ("ADD", "STATUS", "DEL")]
    calls += [(verb, "podwire", with_port(conf, 8080)) for verb in ("ADD", "DEL")]
    calls += [(verb, "podwire-ipam", conf) for verb in ("ADD", "STATUS", "DEL")]
    asked = [[*call, str(pod.path)] for call in calls]
    program = Path(__file__).with_name("lock_held.py")
    done = scene.node.run([sys.executable, "-I", program], stdin=json.dumps(asked))
    loaded = [json.loads(line) for line in done.stdout.splitlines()]
    found = [(*call[:2], modules) for call, modules in zip(calls, loaded, strict=True) if modules]
    assert found == []
