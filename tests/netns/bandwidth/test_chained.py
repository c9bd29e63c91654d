"""`bandwidth` by its name: CHECK, DEL and GC, behind podwire and behind the reference's plugins."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.bandwidth.limits import LIMITS, qdiscs, redirections
from tests.netns.bandwidth.test_limits import DAMAGE
from tests.netns.robustness.confs import Conf, ipam
from tests.netns.robustness.scene import Scene
from tests.netns.robustness.test_kill import instants, kill
from tests.pytest_netns import Namespace

DEBIAN = Path("/usr/lib/cni")
MakePod = Callable[[], Namespace]
VERSION = "1.1.0"


class Chain:
    """A bridge of podwire's or the reference's, and limits behind it."""

    def __init__(self, scene: Scene, folder: Path) -> None:
        self.scene, self.folder = scene, folder
        self.ours = folder != DEBIAN

    def main(self, verb: str, pod: Namespace | str, name: str = "c1", **keys: Any) -> Any:
        version = VERSION if self.ours else "1.0.0"
        conf: Conf = {"cniVersion": version, "name": "chain", "type": "bridge"}
        conf |= {"bridge": "pwbr0", "isGateway": True, "ipam": {"type": "host-local", **ipam(4, 6)}}
        path = pod.path if isinstance(pod, Namespace) else pod
        node = self.scene.node
        answer = node.cni(verb, self.folder / "bridge", conf | keys, netns=path, container_id=name)
        assert answer.code == 0, answer
        return answer.json if verb == "ADD" else None

    def conf(self, result: Any, **keys: Any) -> dict[str, Any]:
        conf = {"cniVersion": VERSION, "name": "chain", "type": "bandwidth", **LIMITS}
        return {**conf, "prevResult": result, **keys}

    def call(
        self, verb: str, pod: Namespace | str, result: Any, name: str = "c1", **keys: Any
    ) -> Any:
        conf = self.conf(result, **keys)
        return self.scene.call(verb, conf, pod, name, program="bandwidth")

    def add(self, pod: Namespace, name: str = "c1") -> tuple[str, str, Any]:
        """The node's end, the device, and the result of both."""
        first = self.main("ADD", pod, name)
        answer = self.call("ADD", pod, first, name)
        assert answer.code == 0, answer
        result = answer.json
        return result["interfaces"][1]["name"], result["interfaces"][-1]["name"], result


@pytest.fixture(params=["podwire", "reference"])
def chain(request: pytest.FixtureRequest, scene: Scene, podwire_bin: Path) -> Chain:
    """A chain on the scene's node."""
    return Chain(scene, podwire_bin if request.param == "podwire" else DEBIAN)


def test_delete_lifts_the_limits_of_a_pair_that_stays(chain: Chain, pod: Namespace) -> None:
    host, ifb, result = chain.add(pod)
    ns = chain.scene.node.ns
    assert qdiscs(ns).keys() == {host, ifb}
    assert chain.call("CHECK", pod, result).code == 0
    for _ in range(2):
        assert chain.call("DEL", pod, result).code == 0
        assert [q["kind"] for q in qdiscs(ns).get(host, ())] == ["ingress"]
        assert redirections(ns, host) == []
        assert ns.link(ifb) is None
        assert pod.ping("10.77.0.1")
    chain.main("DEL", pod)
    assert chain.scene.leftovers(pod) == []


def test_the_main_plugin_deletes_what_is_left(
    scene: Scene, pod: Namespace, podwire_bin: Path
) -> None:
    """A runtime may have lost the chained plugin from its configuration."""
    chain = Chain(scene, podwire_bin)
    chain.add(pod)
    chain.main("DEL", pod)
    assert scene.leftovers(pod) == []


@pytest.mark.parametrize("damage", DAMAGE)
def test_check_finds_each_difference(chain: Chain, pod: Namespace, damage: str) -> None:
    host, ifb, result = chain.add(pod)
    command, words = DAMAGE[damage]
    chain.scene.node.ns.run(["sh", "-c", command.format(host=host, ifb=ifb)])
    answer = chain.call("CHECK", pod, result)
    assert answer.json["code"] == 102
    assert words.format(host=host, ifb=ifb) in answer.json["details"]
    assert chain.call("DEL", pod, result).code == 0
    assert chain.scene.node.ns.link(ifb) is None


def test_an_add_that_is_repeated(chain: Chain, pod: Namespace) -> None:
    first = chain.main("ADD", pod)
    one = chain.call("ADD", pod, first).json
    again = chain.call("ADD", pod, first, egressRate=10**6).json
    assert again == one
    assert chain.call("CHECK", pod, again, egressRate=10**6).code == 0
    assert chain.call("CHECK", pod, again).json["code"] == 102
    zeros: dict[str, Any] = dict.fromkeys(LIMITS, 0)
    passed = chain.call("ADD", pod, first, **zeros).json
    assert passed["interfaces"] == first["interfaces"]


def test_a_root_of_anothers_is_left(chain: Chain, pod: Namespace) -> None:
    """As in the reference. The device that was made before is gone again."""
    first = chain.main("ADD", pod)
    host = first["interfaces"][1]["name"]
    ns = chain.scene.node.ns
    ns.run(["tc", "qdisc", "add", "dev", host, "root", "handle", "1:", "bfifo"])
    before = chain.scene.links(), chain.scene.rows(), qdiscs(ns)
    answer = chain.call("ADD", pod, first)
    assert answer.json["code"] == 101
    assert f"set qdisc tbf of {host}" in answer.json["msg"]
    assert (chain.scene.links(), chain.scene.rows(), qdiscs(ns)) == before
    assert chain.call("DEL", pod, first).code == 0
    assert "bfifo" in ns.run(["tc", "qdisc", "show", "dev", host]).stdout


@pytest.mark.parametrize("lost", [False, True], ids=["recorded", "store lost"])
def test_gc(chain: Chain, make_pod: MakePod, lost: bool) -> None:
    """Pods that the runtime does not list; theirs goes, with the namespace or without it."""
    pods = [make_pod() for _ in range(3)]
    ifbs = [chain.add(pod, f"c{number}")[1] for number, pod in enumerate(pods)]
    pods[1].remove()
    if lost:
        chain.scene.query("DELETE FROM attachment")
    listed = {"cni.dev/valid-attachments": [{"containerID": "c0", "ifname": "eth0"}]}
    if chain.ours:
        chain.main("GC", "", "", **listed)
    assert chain.call("GC", "", None, "", **listed).code == 0
    assert [ifb in chain.scene.links() for ifb in ifbs] == [True, False, False]


@pytest.mark.parametrize("finish", ["DEL", "GC"])
def test_killed_at_any_instant(chain: Chain, pod: Namespace, finish: str) -> None:
    first = chain.main("ADD", pod)
    scene, conf = chain.scene, chain.conf(first)
    listed: Conf = {"cni.dev/valid-attachments": []}
    for at in instants(scene, "ADD", conf, pod, 12, program="bandwidth"):
        if finish == "DEL":
            assert chain.call("DEL", pod, first).code == 0
        else:
            assert chain.call("GC", "", None, "", **listed).code == 0
        assert not any(name.startswith("bwp") for name in scene.links()), at
        kill(scene, "ADD", conf, pod, at, program="bandwidth")


def test_without_a_pair(scene: Scene, pod: Namespace, podwire_bin: Path) -> None:
    chain = Chain(scene, podwire_bin)
    result = chain.main("ADD", pod)
    hidden = {**result, "interfaces": result["interfaces"][2:], "ips": []}
    answer = chain.call("ADD", pod, hidden)
    assert (answer.json["code"], "no other end of the pod's eth0" in answer.json["msg"]) == (
        7,
        True,
    )
