"""Network lists from the field, executed by libcni as they stand.

`conflists` has them with other addresses: kind's (of kindnetd), what k3s' flannel hands to `bridge`
in front of its chain, podman's, Nomad's, CRI-O's and containerd's default, and Calico's chain, in
which another's plugin attaches the pod.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.robustness.confs import DEFAULT_ROUTES
from tests.pytest_netns import Namespace, Node
from tests.pytest_netns.plugin import NAMES
from tests.pytest_netns.tools import go_tools_directory
from tests.pytest_netns.underlay import Family

pytestmark = [pytest.mark.needs("cnitool"), pytest.mark.needs("newest-reference")]

DEBIAN = Path("/usr/lib/cni")
LISTS = sorted(Path(__file__).parent.joinpath("conflists").glob("*.conflist"))
LOOPBACK = {"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}
"""What containerd and CRI-O execute before each network."""
ARGUMENTS = {
    "portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 8053, "containerPort": 53, "protocol": "udp", "hostIP": ""},
    ],
    "bandwidth": {"ingressRate": 10**9, "ingressBurst": 10**8},
}
KUBE_PROXY = tuple(
    f"{tool} -t nat {words}".split()
    for tool in ("iptables", "ip6tables")
    for words in (
        "-N KUBE-MARK-MASQ",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-N KUBE-POSTROUTING",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
        "-A POSTROUTING -j KUBE-POSTROUTING",
    )
)
"""What kube-proxy has on a node before pods come."""


@pytest.fixture(params=["podwire", "reference"])
def plugins(request: pytest.FixtureRequest, tmp_path: Path, podwire_bin: Path) -> Path:
    """A folder with the reference plugins' names; those of podwire are podwire's in the one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if request.param == "podwire":
        for name in NAMES:
            (folder / name).symlink_to((podwire_bin / "podwire").readlink())
    for program in [*go_tools_directory().iterdir(), *DEBIAN.iterdir()]:
        if not (folder / program.name).exists():
            (folder / program.name).symlink_to(program)
    (folder / "calico").symlink_to(DEBIAN / "ptp")
    return folder


class Runtime:
    """libcni with a list: what `cnitool` does for pods."""

    def __init__(self, node: Node, plugins: Path, conflist: Path) -> None:
        self.node, self.list = node, json.loads(conflist.read_text())
        folder = plugins.parent / "net.d"
        folder.mkdir()
        (folder / "10-network.conflist").write_bytes(conflist.read_bytes())
        (folder / "99-loopback.conflist").write_text(json.dumps(LOOPBACK))
        self.is_podwire = (plugins / "bridge").resolve().name == "podwire"
        self._env = {"CNI_PATH": str(plugins), "NETCONFPATH": str(folder)}

    def __call__(
        self, verb: str, pod: Namespace, arguments: Any = None, network: str = "", ifname: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        env = self._env | {"CNI_IFNAME": ifname or "eth0"}
        env |= {"CAP_ARGS": json.dumps(arguments)} if arguments else {}
        argv = [go_tools_directory() / "cnitool", verb, network or self.list["name"], pod.path]
        return self.node.run(argv, env=env)

    def add(self, pod: Namespace, arguments: Any = None) -> dict[Family, str]:
        """The pod's addresses."""
        self("add", pod, network="cni-loopback", ifname="lo")
        result = json.loads(self("add", pod, arguments).stdout)
        links = [link["name"] for link in result["interfaces"]]
        mine = (ip["address"] for ip in result["ips"] if links[ip["interface"]] == "eth0")
        found = (address.partition("/")[0] for address in mine)
        return {6 if ":" in address else 4: address for address in found}


@pytest.fixture(params=LISTS, ids=lambda path: path.stem)
def runtime(request: pytest.FixtureRequest, node: Node, plugins: Path) -> Runtime:
    for argv in KUBE_PROXY:
        node.ns.run(argv)
    return Runtime(node, plugins, request.param)


def keys(runtime: Runtime) -> dict[str, Any]:
    """What all plugins of the list are configured to do."""
    return {key: value for plugin in runtime.list["plugins"] for key, value in plugin.items()}


def test_a_pod_with_ports(runtime: Runtime, make_pod: Callable[[], Namespace]) -> None:
    node, outside, name = runtime.node, runtime.node.underlay.ns, runtime.list["name"]
    one, two = make_pod(), make_pod()
    before = links(node)
    addresses, others = runtime.add(one, ARGUMENTS), runtime.add(two)
    mapped = any(plugin["type"] == "portmap" for plugin in runtime.list["plugins"])
    for family, address in addresses.items():
        web, dns = one.echo("tcp", address, 80), one.echo("udp", address, 53)
        assert two.exchange(web) == others[family]
        world = outside.echo("tcp", outside_address(node, family))
        # CRI-O's list has no default route of IPv6.
        routes = {route["dst"] for route in keys(runtime)["ipam"]["routes"]}
        if keys(runtime).get("ipMasq") and DEFAULT_ROUTES[family] in routes:
            assert one.exchange(world) == node.address(family)
        for server, port in ((web, 8080), (dns, 8053)):
            if mapped:
                to = node.address(family), port
                assert outside.exchange(server, to=to) == outside_address(node, family)
                assert node.ns.exchange(server, to=to)
                assert two.exchange(server, to=to)
        if mapped and family == 4:
            assert node.ns.exchange(web, to=("127.0.0.1", 8080))
    # The reference's CHECK does not find CRI-O's route, which has host bits.
    if runtime.list["cniVersion"] >= "0.4.0" and (runtime.is_podwire or name != "crio"):
        runtime("check", one, ARGUMENTS)
    for _ in range(2):
        runtime("del", one, ARGUMENTS)
        runtime("del", two)
    assert links(node) <= before | {"cni0", "cni-podman0", "nomad"}
    assert one.link("eth0") is None
    rules = node.ns.run(["nft", "list", "ruleset"]).stdout
    assert "10.45." not in rules.replace("10.45.0.1", "")
    runtime("del", one, network="cni-loopback", ifname="lo")


def outside_address(node: Node, family: Family) -> str:
    return node.underlay.gateway(family)


def links(node: Node) -> set[str]:
    return {link["ifname"] for link in node.ip("link show")}
