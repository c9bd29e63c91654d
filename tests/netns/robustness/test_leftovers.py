"""What other plugins left of one attachment is removed, and nothing that another one has."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.confs import netconf
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Namespace, Node

MakePod = Callable[[], Namespace]
CONTAINER = "a" * 64
DEBIAN = Path("/usr/lib/cni")
FOLDER = "/var/lib/cni/networks"
RATES = {"ingressRate": 10**6, "ingressBurst": 10**6, "egressRate": 10**6, "egressBurst": 10**6}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]


@dataclass
class Attachment:
    """One of a container's. result: of the plugins that were called so far."""

    node: Node
    pod: Namespace
    network: str = "one"
    subnet: str = "10.81.0.0/24"
    ifname: str = "eth0"
    container_id: str = CONTAINER
    result: dict[str, Any] = field(default_factory=dict)

    def call(self, verb: str, plugin: Path, **keys: Any) -> None:
        conf = {"cniVersion": "1.0.0", "name": self.network, "type": plugin.name, **keys}
        if plugin.name == "bridge":
            conf["bridge"] = f"br-{self.network}"
            conf["ipam"] = {"type": "host-local", "ranges": [[{"subnet": self.subnet}]]}
        if self.result:
            conf["prevResult"] = self.result
        answer = self.node.cni(
            verb,
            plugin,
            conf,
            container_id=self.container_id,
            netns=self.pod.path,
            ifname=self.ifname,
        )
        assert answer.code == 0, answer
        if verb == "ADD":
            self.result = answer.json


@pytest.fixture
def names(tmp_path: Path, podwire_bin: Path) -> Path:
    """podwire under the names of the plugins that it replaces."""
    for name in ("bridge", "host-local", "portmap", "bandwidth", "firewall"):
        (tmp_path / name).symlink_to((podwire_bin / "podwire").resolve())
    return tmp_path


def test_gc_of_one_network_removes_nothing_of_another(scene: Scene) -> None:
    """A container that is over in one network may run in another, by the same interface."""
    for network, address in (("robust", "10.77.0.55"), ("other", "10.99.0.55")):
        reserve = f"mkdir -p {FOLDER}/{network}; echo '{CONTAINER}\r\neth0' >"
        scene.node.run(["sh", "-c", f"{reserve} {FOLDER}/{network}/{address}"])
    answer = scene.gc(netconf("ptp"), [])
    assert answer.code == 0, answer
    left = scene.node.run(["sh", "-c", f"cd {FOLDER}; ls */10.*"]).stdout.split()
    assert left == ["other/10.99.0.55"]


@pytest.mark.needs("newest-reference")
@pytest.mark.parametrize("program", ["portmap", "bridge"])
@pytest.mark.parametrize("network", ["one", "two"])
def test_ports_of_another_attachment(
    scene: Scene,
    pod: Namespace,
    names: Path,
    newest_reference_bin: Path,
    network: str,
    program: str,
) -> None:
    mapped = Attachment(scene.node, pod)
    mapped.call("ADD", newest_reference_bin / "bridge")
    ports = {"backend": "nftables", "runtimeConfig": {"portMappings": PORTS}}
    mapped.call("ADD", newest_reference_bin / "portmap", **ports)
    subnet = mapped.subnet if network == mapped.network else "10.82.0.0/24"
    other = Attachment(scene.node, pod, network, subnet, "net1")
    other.call("ADD", newest_reference_bin / "bridge")
    before = scene.ruleset()
    other.call("DEL", names / program)
    assert scene.ruleset() == before
    mapped.call("DEL", names / program)
    assert "8080" not in scene.ruleset()


@pytest.mark.parametrize("program", ["bandwidth", "bridge"])
def test_limits_of_another_attachment(
    scene: Scene, pod: Namespace, names: Path, program: str
) -> None:
    limited = Attachment(scene.node, pod)
    limited.call("ADD", DEBIAN / "bridge")
    limited.call("ADD", DEBIAN / "bandwidth", runtimeConfig={"bandwidth": RATES})
    other = Attachment(scene.node, pod, ifname="net1")
    other.call("ADD", DEBIAN / "bridge")
    [device] = (name for name in scene.links() if name.startswith("bwp"))
    other.call("DEL", names / program)
    assert device in scene.links()
    other.call("DEL", names / "bridge")
    limited.call("DEL", names / program)
    assert device not in scene.links()


def test_acceptance_of_an_address_that_another_pod_has(
    scene: Scene, make_pod: MakePod, names: Path
) -> None:
    """A DEL that is repeated, with the result of then."""
    subnet = "10.81.0.0/30"
    gone = Attachment(scene.node, make_pod(), subnet=subnet)
    heir = Attachment(scene.node, make_pod(), subnet=subnet, container_id="b" * 64)
    gone.call("ADD", DEBIAN / "bridge")
    gone.call("DEL", DEBIAN / "bridge")
    heir.call("ADD", DEBIAN / "bridge")
    assert heir.result["ips"] == gone.result["ips"]
    heir.call("ADD", DEBIAN / "firewall", backend="iptables")
    before = scene.ruleset()
    gone.call("DEL", names / "firewall", backend="iptables")
    assert scene.ruleset() == before
    heir.call("DEL", names / "firewall", backend="iptables")
    assert "10.81.0" not in scene.ruleset()
