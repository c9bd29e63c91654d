"""kill -9 at any instant of a call that adds pieces: DEL leaves nothing of them."""

import pytest

from tests.netns.host_ports.test_host_ports import mapping
from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.netns.robustness.test_kill import instants, kill
from tests.pytest_netns import Namespace

KILLS = 20
PIECES = {
    "sysctl": {"net.core.somaxconn": "512"},
    "promisc": True,
    "txQLen": 500,
    "ingressRate": 10**9,
    "ingressBurst": 10**7,
    "egressRate": 10**9,
    "egressBurst": 10**7,
    "runtimeConfig": {"portMappings": [mapping(8080, 80)]},
}


@pytest.mark.parametrize("mode", MODES)
def test_native(scene: Scene, pod: Namespace, mode: str) -> None:
    conf = netconf(mode, (4, 6), ipMasq=True, **PIECES)
    assert scene.call("STATUS", conf).code == 0
    for number, at in enumerate(instants(scene, "ADD", conf, pod, KILLS)):
        assert scene.call("DEL", conf, pod if number % 2 else "").code == 0
        assert scene.leftovers(pod) == [], f"before instant {at.event}"
        kill(scene, "ADD", conf, pod, at)
    assert scene.call("DEL", conf, pod).code == 0
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_chained(scene: Scene, pod: Namespace, verb: str) -> None:
    main = scene.add(netconf("ptp", (4, 6)), pod)
    original = pod.link("eth0")
    conf = {
        "cniVersion": "1.1.0",
        "name": "robust",
        "type": "tuning",
        "promisc": True,
        "mac": "02:11:22:33:44:55",
        "mtu": 1400,
        "prevResult": main.result,
    }
    if verb == "DEL":
        assert scene.call("ADD", conf, pod, program="tuning").code == 0
    for at in instants(scene, verb, conf, pod, KILLS, program="tuning"):
        for each in ("DEL", "ADD") if verb == "DEL" else ("DEL",):
            assert scene.call(each, conf, pod, program="tuning").code == 0
        kill(scene, verb, conf, pod, at, program="tuning")
        assert scene.call("DEL", conf, pod, program="tuning").code == 0
        assert pod.link("eth0") == original, f"after instant {at.event}"
    scene.delete(main)
    assert scene.leftovers(pod) == []
