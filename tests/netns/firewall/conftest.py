"""A node with filters of other programs, and plugins of podwire and of the reference."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.pytest_netns import CniResult, MakeNamespace, Namespace, Node, Underlay
from tests.pytest_netns.traffic import REPLY_TIMEOUT
from tests.pytest_netns.underlay import Family

DEBIAN_REFERENCE = Path("/usr/lib/cni")
BOTH: tuple[Family, ...] = (4, 6)
IPTABLES: dict[Family, str] = {4: "iptables", 6: "ip6tables"}
SUBNETS: dict[Family, str] = {4: "10.77.{0}.0/24", 6: "fd00:77:{0}::/64"}
NEWEST = pytest.param("newest", marks=pytest.mark.needs("newest-reference"))

Conf = dict[str, Any]
MakePlugins = Callable[[str, str], Path]


@dataclass
class Pod:
    """A pod of a chain: its namespace, and the result of the last plugin."""

    ns: Namespace
    container_id: str
    network: int
    kind: str
    result: dict[str, Any] = field(default_factory=dict)

    def address(self, family: Family) -> str:
        found = (str(ip["address"]).partition("/")[0] for ip in self.result["ips"])
        return next(address for address in found if (":" in address) == (family == 6))


class Chain:
    """A node on which pods are attached by a main plugin and by `firewall` behind it."""

    def __init__(self, node: Node, plugins: Path, make_pod: Callable[[], Namespace]) -> None:
        self.node, self.plugins, self._make_pod = node, plugins, make_pod
        self._count = 0

    def main(self, network: int, kind: str) -> Conf:
        """The main plugin's configuration: network number N has the bridge brN."""
        ranges = [[{"subnet": SUBNETS[family].format(network)}] for family in BOTH]
        routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
        keys = {"bridge": f"br{network}", "isGateway": True} if kind == "bridge" else {}
        ipam = {"type": "host-local", "ranges": ranges, "routes": routes}
        return {
            "cniVersion": "1.0.0", "name": f"net{network}", "type": kind, "ipam": ipam, **keys
        }  # fmt: skip

    def firewall(self, network: int, **keys: Any) -> Conf:
        """The configuration of `firewall`."""
        return {"cniVersion": "1.0.0", "name": f"net{network}", "type": "firewall", **keys}

    def add(self, network: int = 0, kind: str = "bridge", **keys: Any) -> Pod:
        """Attach a pod; AssertionError if either plugin fails."""
        self._count += 1
        pod = Pod(self._make_pod(), f"container{self._count}", network, kind)
        first = self._cni("ADD", kind, pod, self.main(network, kind))
        assert first.code == 0, first
        pod.result = first.json
        last = self.call("ADD", pod, **keys)
        assert last.code == 0, last
        assert {"dns": {}, **last.json} == {"dns": {}, **first.json}
        pod.result = last.json
        settle(self.node.ns, pod.ns)
        return pod

    def call(self, verb: str, pod: Pod, **keys: Any) -> CniResult:
        """A verb of `firewall` for a pod."""
        conf = self.firewall(pod.network, **{"prevResult": pod.result, **keys})
        return self._cni(verb, "firewall", pod, {k: v for k, v in conf.items() if v is not None})

    def delete(self, pod: Pod, **keys: Any) -> None:
        """DEL of both; AssertionError if either fails."""
        assert self.call("DEL", pod, **keys).code == 0
        answer = self._cni("DEL", pod.kind, pod, self.main(pod.network, pod.kind))
        assert answer.code == 0, answer

    def _cni(self, verb: str, program: str, pod: Pod, conf: Conf) -> CniResult:
        return self.node.cni(
            verb,
            self.plugins / program,
            conf,
            netns=pod.ns.path,
            container_id=pod.container_id,
        )

    def iptables(self, command: str, flavour: str = "") -> str:
        """What both iptables of a flavour ("nft", "legacy"; empty: the node's) print."""
        lines = ""
        for name in IPTABLES.values():
            program = "-".join(filter(None, (name, flavour)))
            lines += self.node.ns.run([program, *command.split()]).stdout
        return lines

    def drop_forwarded(self, flavour: str = "") -> None:
        """What Docker does: nothing is forwarded but what a rule accepts."""
        self.iptables("-P FORWARD DROP", flavour)

    def route_back(self, pod: Pod) -> None:
        """Routes to the pod from the network of the node's uplink."""
        for family in BOTH:
            via = self.node.address(family)
            self.outside.ip_batch(f"route replace {pod.address(family)} via {via}")

    @property
    def outside(self) -> Namespace:
        """The network of the node's uplink."""
        return self.node.underlay.ns

    def leaves(self, pod: Pod, family: Family, seconds: float = REPLY_TIMEOUT) -> bool:
        """Whether the pod reaches a server on the uplink's network, in so many seconds."""
        self.route_back(pod)
        server = self.outside.echo("tcp", self.node.underlay.gateway(family))
        return pod.ns.reaches(server, seconds=seconds)

    def enters(self, pod: Pod, family: Family, seconds: float = REPLY_TIMEOUT) -> bool:
        """Whether a client on the uplink's network reaches the pod, in so many seconds."""
        self.route_back(pod)
        return self.outside.reaches(pod.ns.echo("tcp", pod.address(family)), seconds=seconds)


def settle(*spaces: Namespace) -> None:
    """Wait until no IPv6 address is tentative."""
    for ns in spaces:
        while any(link.get("addr_info") for link in ns.ip("-6 address show tentative")):
            pass


@pytest.fixture
def make_plugins(tmp_path: Path, podwire_bin: Path, request: pytest.FixtureRequest) -> MakePlugins:
    """Makes a folder of plugins: the main ones, and `firewall`, each of podwire or of a release of
    the reference."""

    def folder_of(release: str) -> Path | None:
        if release == "newest":
            newest = request.getfixturevalue("newest_reference_bin")
            assert isinstance(newest, Path)
            return newest
        return DEBIAN_REFERENCE if release == "debian" else None

    def make(mains: str, firewall: str) -> Path:
        folder = tmp_path / f"bin-{mains}-{firewall}"
        folder.mkdir()
        ours = (podwire_bin / "podwire").resolve()
        for name in ("bridge", "ptp", "host-local", "firewall"):
            release = folder_of(firewall if name == "firewall" else mains)
            (folder / name).symlink_to(release / name if release else ours)
        return folder

    return make


@pytest.fixture
def make_chain(
    netns: MakeNamespace, make_pod: Callable[[], Namespace], make_plugins: MakePlugins
) -> Iterator[Callable[[str, str], Chain]]:
    """Makes nodes with the given plugins (mains, `firewall`): "podwire", "debian", "newest"."""
    with ExitStack() as stack:

        def make(mains: str, firewall: str) -> Chain:
            node = Node(netns("node"), Underlay(netns("underlay")), 1500)
            stack.callback(node.remove)
            for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                node.ns.sysctl(key, "1")
            return Chain(node, make_plugins(mains, firewall), make_pod)

        yield make


MakeChain = Callable[[str, str], Chain]
