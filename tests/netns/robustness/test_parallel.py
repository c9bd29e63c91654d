"""Crowds: many calls at the same time."""

from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import GATEWAYS, MODES, netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace

CROWD = 64


@pytest.mark.parametrize("mode", MODES)
def test_sixty_four_at_once(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    conf = netconf(mode, (4, 6), ipMasq=True)
    other = netconf(mode, name="other", bridge="pwbr1", ipam={"subnet": "10.88.0.0/24"})
    stays, bystander = make_pod(), make_pod()
    scene.add(other, stays, "stays")
    scene.add(other, bystander, "goes")
    pods = {f"c{number}": make_pod() for number in range(CROWD)}

    calls = {name: scene.start("ADD", conf, pod, name) for name, pod in pods.items()}
    collecting = [scene.start("GC", {**other, "cni.dev/valid-attachments": [{"containerID": "stays", "ifname": "eth0"}]}) for _ in range(4)]  # fmt: skip  # noqa: E501
    answers = {name: call.result() for name, call in calls.items()}
    assert [a for a in answers.values() if a.code] == []
    assert [a for a in (call.result() for call in collecting) if a.code] == []

    addresses = [address for answer in answers.values() for address in answer.addresses]
    assert len(set(addresses)) == 2 * CROWD
    unreached = [
        (name, family)
        for name, pod in pods.items()
        for family in (4, 6)
        if not pod.ping(GATEWAYS[family])
    ]
    assert unreached == []
    assert scene.links(bystander) == {"lo"}
    assert stays.ping("10.88.0.1")
    checks = {
        name: scene.start("CHECK", {**conf, "prevResult": answers[name].json}, pod, name)
        for name, pod in pods.items()
    }
    assert [a for a in (call.result() for call in checks.values()) if a.code] == []

    calls = {name: scene.start("DEL", conf, pod, name) for name, pod in pods.items()}
    assert [a for a in (call.result() for call in calls.values()) if a.code] == []
    assert scene.call("DEL", other, stays, "stays").code == 0
    left = [line for line in scene.leftovers(*pods.values()) if line != "node link pwbr1"]
    assert left == []


@pytest.mark.parametrize("mode", MODES)
def test_same_attachment_many_times_at_once(scene: Scene, pod: Namespace, mode: str) -> None:
    """A runtime may not do it; DEL takes all of it away even so."""
    conf = netconf(mode, (4, 6), ipMasq=True)
    for call in [scene.start("ADD", conf, pod) for _ in range(8)]:
        answer = call.result()
        assert answer.code == 0 or answer.json["code"] in (11, 101, 103), answer
    assert scene.call("DEL", conf, pod).code == 0
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_deleted_many_times_at_once(scene: Scene, pod: Namespace, mode: str) -> None:
    attached = scene.add(netconf(mode, (4, 6), ipMasq=True), pod)
    calls = [scene.start("DEL", attached.conf, pod) for _ in range(8)]
    assert [a for a in (call.result() for call in calls) if a.code] == []
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("mode", MODES)
def test_churn(scene: Scene, make_pod: Callable[[], Namespace], mode: str) -> None:
    """ADDs of some and DELs of others together, round after round, masquerade coming and going."""
    conf = netconf(mode, (4, 6), ipMasq=True)
    pods = [make_pod() for _ in range(12)]
    here: set[int] = set()
    for turn in range(6):
        verbs = {n: "DEL" if n in here else "ADD" for n in range(12) if (n + turn) % 3}
        calls = {n: scene.start(verb, conf, pods[n], f"c{n}") for n, verb in verbs.items()}
        assert [a for a in (call.result() for call in calls.values()) if a.code] == []
        here ^= verbs.keys()
    outside = scene.node.underlay.ns.echo("tcp", scene.node.underlay.gateway(4))
    for n in here:
        assert pods[n].exchange(outside) == scene.node.address(4)
    calls = {n: scene.start("DEL", conf, pods[n], f"c{n}") for n in here}
    assert [a for a in (call.result() for call in calls.values()) if a.code] == []
    assert scene.leftovers(*pods) == []
