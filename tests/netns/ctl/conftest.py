"""A node with pods, made once for a module: podwire's, and one of another plugin."""

import base64
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster
from tests.pytest_netns import Namespace, Node
from tests.pytest_netns.plugin import Registry
from tests.pytest_netns.underlay import Underlay

RANGES = [[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:77::/64"}]]
CONF: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "type": "podwire",
    "ipam": {"type": "podwire-ipam", "ranges": RANGES, "routes": [{"dst": "0.0.0.0/0"}]},
}
MODES: dict[str, dict[str, Any]] = {
    "bridge": {"mode": "bridge", "bridge": "pw0", "isGateway": True},
    "ptp": {"mode": "ptp"},
}


@dataclass
class Stage:
    """A node, its pods by name, and where podwire's programs are."""

    node: Node
    bin_dir: Path
    registry: Registry
    stack: ExitStack
    underlay: Underlay
    pods: dict[str, Namespace] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(
        self,
        pod: str,
        mode: str = "bridge",
        ifname: str = "eth0",
        container: str = "",
        **conf: Any,
    ) -> Namespace:
        """A pod "namespace/name"; its container is called after it unless it has another name."""
        if pod not in self.pods:
            self.pods[pod] = self.registry.make("pod")
            self.stack.callback(self.pods[pod].remove)
        namespace, name = pod.split("/")
        answer = self.node.cni(
            "ADD",
            self.bin_dir / "podwire",
            {**CONF, **MODES[mode], **conf},
            container_id=container or container_of(pod),
            netns=self.pods[pod].path,
            ifname=ifname,
            args=f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}",
        )
        assert answer.code == 0, answer
        self.results[f"{pod} {ifname}"] = answer.json
        return self.pods[pod]

    def remove(self, pod: str, container: str) -> None:
        """DEL of one."""
        conf = {**CONF, **MODES["bridge"]}
        path, program = self.pods[pod].path, self.bin_dir / "podwire"
        answer = self.node.cni("DEL", program, conf, container_id=container, netns=path)
        assert answer.code == 0, answer

    def host(self, pod: str, ifname: str = "eth0") -> dict[str, Any]:
        """The node's end, as the result of ADD has it."""
        found = self.results[f"{pod} {ifname}"]["interfaces"]
        return next(i for i in found if "sandbox" not in i and i["name"] != "pw0")

    def address(self, pod: str, ifname: str = "eth0") -> str:
        """The first address."""
        return str(self.results[f"{pod} {ifname}"]["ips"][0]["address"]).partition("/")[0]

    def note(self, pod: str, host: str, plugin: str = "calico") -> None:
        """What a runtime notes of a pod that another plugin wired."""
        namespace, name = pod.split("/")
        config = json.dumps({"name": "other", "plugins": [{"type": plugin}]}).encode()
        noted = {
            "containerId": container_of(pod),
            "networkName": "other",
            "ifName": "eth0",
            "config": base64.b64encode(config).decode(),
            "cniArgs": [["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", name]],
            "result": {"interfaces": [{"name": host}], "ips": [{"address": "10.9.9.9/32"}]},
        }
        folder = "/var/lib/cni/results"
        self.node.run(["mkdir", "-p", folder])
        self.node.run(["tee", f"{folder}/other-{name}-eth0"], stdin=json.dumps(noted))

    def ctl(self, *words: object, status: int = 0) -> tuple[str, str]:
        """Run `podwirectl` on the node: what it printed, on stdout and on stderr."""
        argv = [str(self.bin_dir / "podwirectl"), *map(str, words)]
        done = self.node.run(argv, check=False)
        assert done.returncode == status, done
        return done.stdout, done.stderr

    def json(self, *words: object, status: int = 0) -> Any:
        """The same as JSON."""
        return json.loads(self.ctl(*words, "-o", "json", status=status)[0])


def container_of(pod: str) -> str:
    """Its container's ID."""
    return pod.replace("/", "-").ljust(40, "0")


@pytest.fixture(scope="module")
def stage(netns_registry: Registry, podwire_bin: Path) -> Iterator[Stage]:
    """A node without pods."""
    with ExitStack() as stack:
        switch = netns_registry.make("underlay")
        stack.callback(switch.remove)
        namespace = netns_registry.make("node")
        stack.callback(namespace.remove)
        underlay = Underlay(switch)
        node = Node(namespace, underlay, 1500)
        stack.callback(node.remove)
        program = (podwire_bin / "podwire").resolve().parent
        yield Stage(node, program, netns_registry, stack, underlay)


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest,
    netns_registry: Registry,
    podwire_bin: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """A cluster of two nodes, in sync. POD_MODES of the module: of their pods."""
    with ExitStack() as stack:

        def make(label: str) -> Namespace:
            made = netns_registry.make(label)
            stack.callback(made.remove)
            return made

        underlay = Underlay(make("underlay"))

        def make_node(*, mtu: int = 1500) -> Node:
            node = Node(make("node"), underlay, mtu)
            stack.callback(node.remove)
            return node

        podwired = (podwire_bin / "podwire").resolve().with_name("podwired")
        made = Cluster(tmp_path_factory.mktemp("cluster"), make_node, podwired, make)
        for mode in getattr(request.module, "POD_MODES", ("ptp", "ptp")):
            member = made.join(start=False, health={"interval": 1})
            member.settings["conflist"]["mode"] = mode
            member.start()
            stack.callback(member.stop, signal.SIGKILL)
        made.settle()
        yield made
