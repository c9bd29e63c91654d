"""Story 10: the old plugin's pods are deleted under the new one, and what they had leaks for weeks.

The reference plugins make pods; then podwire is in their place. DEL and GC leave nothing of a
container that is deleted, and everything of the others.
"""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.daemon.conftest import Daemon
from tests.netns.routing.conftest import eventually
from tests.pytest_netns import CniResult, Namespace, Node

DEBIAN = Path("/usr/lib/cni")
NETWORK = "pods"
RANGES = [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]]
SHAPING = {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 10**6, "egressBurst": 10**6}
DIRECTORY = f"/var/lib/cni/networks/{NETWORK}"
LEGACY = "/usr/sbin/xtables-legacy-multi"


@dataclass
class Pod:
    container_id: str
    ns: Namespace
    result: dict[str, Any] = field(default_factory=dict)


@dataclass
class Scene:
    """A node, and the plugins that made its pods."""

    node: Node
    reference: Path
    mode: str
    rules: str
    path: str
    podwire: Path
    make_pod: Callable[[], Namespace]
    ifname: str = "eth0"

    def conf(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"cniVersion": "1.0.0", "name": NETWORK, "type": kind, **more}

    def main(self) -> dict[str, Any]:
        keys: dict[str, Any] = {"ipMasq": True}
        if self.rules == "nftables":
            keys["ipMasqBackend"] = "nftables"
        if self.mode == "bridge":
            keys |= {"bridge": "cni0", "isGateway": True, "macspoofchk": self.rules == "nftables"}
        return self.conf(self.mode, **keys, ipam={"type": "host-local", "ranges": RANGES})

    def call(
        self, plugin: Path, verb: str, conf: dict[str, Any], pod: Pod, netns: Any
    ) -> CniResult:
        env = {"PATH": f"{self.path}:/usr/sbin:/usr/bin:/sbin:/bin"}
        return self.node.cni(
            verb,
            plugin,
            conf,
            container_id=pod.container_id,
            netns=netns,
            ifname=self.ifname,
            env=env,
        )

    def add(self, container_id: str, port: int) -> Pod:
        """A pod of the reference: bridge or ptp, portmap, bandwidth."""
        pod = Pod(container_id, self.make_pod())
        mapping = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
        backend = {"backend": "nftables"} if self.rules == "nftables" else {}
        chain = [
            self.main(),
            self.conf("portmap", snat=True, runtimeConfig={"portMappings": [mapping]}, **backend),
            self.conf("bandwidth", runtimeConfig={"bandwidth": SHAPING}),
        ]
        for conf in chain:
            more = {"prevResult": pod.result} if pod.result else {}
            answer = self.call(
                self.reference / conf["type"], "ADD", {**conf, **more}, pod, pod.ns.path
            )
            assert answer.code == 0, answer
            pod.result = answer.json
        return pod

    def state(self) -> dict[str, object]:
        """What is on the node: rules, reservations, links; counters and the like apart."""
        found: dict[str, object] = {}
        for program in ("iptables-legacy-save", "ip6tables-legacy-save"):
            if self.rules == "legacy":
                found[program] = _without_counters(self.node.run([program]).stdout)
        found["nft"] = _without_counters(self.node.run(["nft", "list", "ruleset"]).stdout)
        files = f"cd {DIRECTORY} && ls -l --time-style=full-iso [0-9f]* && cat [0-9f]*"
        found["files"] = self.node.run(["sh", "-c", files], check=False).stdout
        found["links"] = sorted(
            (link["ifname"], link["address"]) for link in self.node.ip("link show")
        )
        found["routes"] = sorted(str(r) for r in self.node.ip("route show"))
        return found

    def traces(self, pod: Pod) -> list[str]:
        """Where the node's state names the pod's container or an address of it."""
        texts = [pod.container_id, *(ip["address"].split("/")[0] for ip in pod.result["ips"])]
        state = json.dumps(self.state())
        return [text for text in texts if re.search(rf"{re.escape(text)}(?![0-9a-f])", state)]


def _without_counters(text: str) -> str:
    text = re.sub(r"\[\d+:\d+\]|packets \d+ bytes \d+", "", text)
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


RULES = ["legacy", "iptables-nft", "nftables"]
CASES = [
    *(("newest", mode, rules) for mode in ("bridge", "ptp") for rules in RULES),
    *(("debian", mode, rules) for mode in ("bridge", "ptp") for rules in RULES[:2]),
]


@pytest.fixture(params=CASES, ids="-".join)
def scene(
    request: pytest.FixtureRequest,
    node: Node,
    podwire_bin: Path,
    make_pod: Callable[[], Namespace],
    tmp_path: Path,
) -> Scene:
    version, mode, rules = request.param
    reference = DEBIAN
    if version == "newest":
        reference = request.getfixturevalue("newest_reference_bin")
    path = tmp_path / "path"
    path.mkdir()
    program = LEGACY if rules == "legacy" else "/usr/sbin/xtables-nft-multi"
    for name in ("iptables", "ip6tables"):
        (path / name).symlink_to(program)
    names = tmp_path / "names"
    names.mkdir()
    for name in ("podwire", "bridge", "ptp", "host-local", "portmap"):
        (names / name).symlink_to((podwire_bin / "podwire").resolve())
    return Scene(node, reference, mode, rules, str(path), names, make_pod)


def native(scene: Scene) -> dict[str, Any]:
    return scene.conf("podwire", mode=scene.mode, ipMasq=True, ipam={"ranges": RANGES})


pytestmark = pytest.mark.needs("newest-reference")


def test_the_network_has_another_name_now(scene: Scene) -> None:
    """containerd deletes old pods by the newest conflist, and finds no cached result for it."""
    other = scene.add("b" * 64, 8081)
    before = scene.state()
    gone = scene.add("a" * 64, 8080)
    conf = {**native(scene), "name": "podwire"}
    answer = scene.call(scene.podwire / "podwire", "DEL", conf, gone, gone.ns.path)
    assert answer.code == 0, answer
    assert scene.state() == before
    assert gone.ns.link("eth0") is None
    assert other.ns.link("eth0") is not None


@pytest.mark.parametrize("known", ["namespace", "prevResult"])
def test_del_leaves_nothing_of_the_container_and_all_of_the_others(
    scene: Scene, known: str
) -> None:
    other = scene.add("b" * 64, 8081)
    before = scene.state()
    gone = scene.add("a" * 64, 8080)
    assert len(scene.traces(gone)) == 3, "the reference names it"
    conf = native(scene)
    netns: object = gone.ns.path
    if known == "prevResult":
        # The pod's end is gone with its namespace, or the runtime does not say where it is.
        conf, netns = {**conf, "prevResult": gone.result}, ""
    for _ in range(2):
        answer = scene.call(scene.podwire / "podwire", "DEL", conf, gone, netns)
        assert answer.code == 0, answer
        assert scene.state() == before
    assert gone.ns.link("eth0") is None
    assert other.ns.link("eth0") is not None
    answer = scene.call(scene.podwire / "podwire", "DEL", native(scene), other, other.ns.path)
    assert answer.code == 0, answer
    assert scene.traces(other) == []


def test_the_reference_itself_leaves_what_another_plugin_made(scene: Scene) -> None:
    pod = scene.add("a" * 64, 8080)
    kind = "ptp" if scene.mode == "bridge" else "bridge"
    other = scene.conf(kind, ipam={"type": "host-local", "ranges": RANGES})
    answer = scene.call(scene.reference / kind, "DEL", other, pod, "")
    assert answer.code == 0, answer
    assert "10.88.0.2" in scene.traces(pod), "in rules, at least"


def test_a_digest_that_two_containers_have_is_no_proof(scene: Scene) -> None:
    """The reference concatenates network and container ID: pods + a... is podsa + ..."""
    pod = scene.add("a" * 64, 8080)
    before = scene.state()
    conf = {**native(scene), "name": f"{NETWORK}a"}
    namesake = Pod("a" * 63, scene.make_pod())
    answer = scene.call(scene.podwire / "podwire", "DEL", conf, namesake, namesake.ns.path)
    assert answer.code == 0, answer
    after = scene.state()
    # The device of `bandwidth` has no more than that name.
    links = [link for link in before.pop("links") if not link[0].startswith("bwp")]  # type: ignore[attr-defined]
    assert [link for link in after.pop("links") if not link[0].startswith("bwp")] == links  # type: ignore[attr-defined]
    assert after == before
    assert pod.ns.link("eth0") is not None


def test_a_late_del_takes_nothing_of_a_pod_that_has_the_address_now(scene: Scene) -> None:
    gone = scene.add("a" * 64, 8080)
    conf = {**native(scene), "prevResult": gone.result}
    assert scene.call(scene.podwire / "podwire", "DEL", conf, gone, gone.ns.path).code == 0
    # host-local goes through its range: the files say where it is.
    scene.node.run(["sh", "-c", f"rm -f {DIRECTORY}/last_reserved_ip.*"])
    heir = scene.add("b" * 64, 8080)
    assert heir.result["ips"][0]["address"] == gone.result["ips"][0]["address"]
    before = scene.state()
    answer = scene.call(scene.podwire / "podwire", "DEL", conf, gone, heir.ns.path)
    assert answer.code == 0, answer
    assert scene.state() == before
    assert heir.ns.link("eth0") is not None


def test_del_by_the_names_of_the_reference(scene: Scene) -> None:
    scene.add("b" * 64, 8081)
    before = scene.state()
    gone = scene.add("a" * 64, 8080)
    for kind, conf in (("portmap", scene.conf("portmap")), (scene.mode, scene.main())):
        conf = {**conf, "prevResult": gone.result}
        answer = scene.call(scene.podwire / kind, "DEL", conf, gone, gone.ns.path)
        assert answer.code == 0, answer
    assert scene.state() == before


@pytest.mark.parametrize(
    "scene", [("newest", "bridge", rules) for rules in RULES], ids="-".join, indirect=True
)
def test_the_daemon_deletes_many_at_once(scene: Scene, podwire_bin: Path, tmp_path: Path) -> None:
    scene.add("b" * 64, 8081)
    before = scene.state()
    gone = [scene.add(letter * 64, 9000 + ord(letter)) for letter in "acdef"]
    podwired = (podwire_bin / "podwire").resolve().with_name("podwired")
    daemon = Daemon(scene.node, podwired, tmp_path)

    def delete(pod: Pod) -> CniResult:
        return scene.call(scene.podwire / "podwire", "DEL", native(scene), pod, pod.ns.path)

    with ThreadPoolExecutor(len(gone)) as threads:
        answers = list(threads.map(delete, gone))
    _status, log = daemon.stop()
    assert [answer.code for answer in answers] == [0] * len(gone), (answers, log)
    assert scene.state() == before
    assert log.count("removed what other plugins left: link eth0 of the pod") == len(gone)


def test_gc_collects_what_the_runtime_does_not_list(scene: Scene) -> None:
    live = scene.add("b" * 64, 8081)
    before = scene.state()
    gone = [scene.add(letter * 64, 9000 + ord(letter)) for letter in "acd"]
    for pod in gone:
        pod.ns.remove()
    listed = [{"containerID": live.container_id, "ifname": "eth0"}]
    conf = {**native(scene), "cniVersion": "1.1.0", "cni.dev/valid-attachments": listed}
    names = {name for name, _mac in scene.state()["links"]}  # type: ignore[attr-defined]
    assert len([name for name in names if name.startswith("bwp")]) == 4
    answer = scene.node.cni("GC", scene.podwire / "podwire", conf, container_id="", ifname="")
    assert answer.code == 0, answer
    eventually(lambda: scene.state() == before or scene.state())
    assert live.ns.link("eth0") is not None
