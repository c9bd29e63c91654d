"""The object `firewall` of podwire's own configuration: all in one call."""

from typing import Any

import pytest

from tests.netns.firewall.conftest import BOTH
from tests.netns.robustness.confs import BRIDGE, MODES, Conf, netconf
from tests.netns.robustness.conftest import scene, zygote
from tests.netns.robustness.scene import DATA_DIR, OWN_LINKS, Scene
from tests.pytest_netns import Namespace

__all__ = ["scene", "zygote"]


def conf(mode: str, **keys: Any) -> Conf:
    return netconf(mode, (4, 6), ipMasq=True, firewall=keys)


def drop(scene: Scene) -> None:
    for name in ("iptables", "ip6tables"):
        scene.node.ns.run([name, "-P", "FORWARD", "DROP"])


def rules(scene: Scene) -> str:
    names = ("iptables", "ip6tables")
    return "".join(scene.node.ns.run([name, "-S"]).stdout for name in names)


def nothing_left(scene: Scene) -> bool:
    """Whether podwire has no link, no row and no rule of its own."""
    return scene.links() <= OWN_LINKS and not scene.rows() and "podwire" not in scene.ruleset()


@pytest.mark.parametrize("mode", MODES)
def test_one_call(scene: Scene, pod: Namespace, mode: str) -> None:
    drop(scene)
    outside = scene.node.underlay.ns
    attached = scene.add(conf(mode, ingressPolicy="isolated"), pod)
    for family in BOTH:
        server = outside.echo("tcp", scene.node.underlay.gateway(family))
        assert pod.exchange(server) == scene.node.address(family)
    assert scene.check(attached).code == 0
    link = BRIDGE if mode == "bridge" else attached.host
    listed = scene.node.ns.run(["nft", "list", "set", "inet", "podwire", "policy_links"]).stdout
    assert f'"{link}"' in listed
    scene.node.ns.run(["iptables", "-F", "CNI-FORWARD"])
    damaged = scene.check(attached)
    assert damaged.json["code"] == 102
    assert "by the node's firewall is missing" in damaged.json["msg"]
    scene.delete(attached)
    scene.delete(attached)
    assert "CNI" not in rules(scene)
    assert nothing_left(scene)


def test_gc(scene: Scene, make_pod: Any) -> None:
    stale, lives = (scene.add(conf("ptp"), make_pod(), name) for name in ("c1", "c2"))
    assert scene.gc(stale.conf, [("c2", "eth0")]).code == 0
    for family in BOTH:
        assert stale.address(family) not in rules(scene)
        assert lives.address(family) in rules(scene)


def lose_store() -> None:
    for file in DATA_DIR.glob("podwire.db*"):
        file.unlink()


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_after_the_loss_of_the_store(scene: Scene, pod: Namespace, verb: str) -> None:
    attached = scene.add(conf("ptp"), pod)
    scene.on_files(lose_store)
    if verb == "DEL":
        scene.delete(attached)
    else:
        assert scene.gc(attached.conf, []).code == 0
    assert "CNI" not in rules(scene)


def test_a_failed_add_leaves_nothing(scene: Scene, pod: Namespace) -> None:
    """The administrator's chain is one that iptables cannot jump to."""
    drop(scene)
    scene.node.ns.run(["iptables", "-N", "MINE"])
    scene.node.ns.run(["iptables", "-A", "MINE", "-j", "DROP"])
    scene.node.ns.run(["nft", "add chain ip6 filter MINE { type filter hook input priority 9; }"])
    before = rules(scene)
    answer = scene.call("ADD", conf("ptp", iptablesAdminChainName="MINE"), pod)
    assert answer.code == 1, answer
    assert rules(scene) == before
    assert nothing_left(scene)


def test_many_at_once(scene: Scene, make_pod: Any) -> None:
    """None of the rules is lost, and none is left."""
    pods = [make_pod() for _ in range(8)]
    calls = [scene.start("ADD", conf("ptp"), pod, f"c{n}") for n, pod in enumerate(pods)]
    results = [call.result() for call in calls]
    assert [result.code for result in results] == [0] * len(pods)
    for result in results:
        for ip in result.json["ips"]:
            place = ip["address"].partition("/")[0]
            assert rules(scene).count(f"-s {place}/") == 1
    again = [scene.start("DEL", conf("ptp"), pod, f"c{n}") for n, pod in enumerate(pods)]
    assert [call.result().code for call in again] == [0] * len(pods)
    assert "CNI" not in rules(scene)
