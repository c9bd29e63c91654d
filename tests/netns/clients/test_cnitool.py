"""cnitool, libcni's own client, drives podwire through every verb that it has."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.netns.clients.conftest import Held, WriteNetwork
from tests.pytest_netns import MakeNamespace, Namespace, Node, changes, snapshot
from tests.pytest_netns.tools import go_tools_directory

pytestmark = pytest.mark.needs("cnitool")

DEBIAN_REFERENCE = Path("/usr/lib/cni")

RANGES = [[{"subnet": "10.40.0.0/24"}], [{"subnet": "2001:db8:40::/64"}]]
ROUTES = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
BRIDGE = {
    "type": "podwire",
    "mode": "bridge",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": {"ranges": RANGES},
}
PTP = {
    "type": "podwire",
    "mode": "ptp",
    "ipMasq": True,
    "ipam": {"ranges": RANGES, "routes": ROUTES},
}
REFERENCE_BRIDGE = {
    "type": "bridge",
    "isDefaultGateway": True,
    "ipam": {"type": "podwire-ipam", "ranges": RANGES},
}
TUNING = {"type": "tuning", "sysctl": {"net.core.somaxconn": "77"}}
LISTS = [
    pytest.param([BRIDGE], "1.1.0", id="bridge"),
    pytest.param([PTP], "1.1.0", id="ptp"),
    pytest.param([BRIDGE], "0.4.0", id="bridge-0.4.0"),
    pytest.param([BRIDGE, TUNING], "1.0.0", id="chained-before-tuning"),
    pytest.param([REFERENCE_BRIDGE], "1.0.0", id="ipam-of-the-reference-bridge"),
]

Cnitool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cnitool(node: Node, podwire_bin: Path, tmp_path: Path, netns: MakeNamespace) -> Cnitool:
    """Runs cnitool on the node. Plugins are podwire's, then the reference's."""
    names = tmp_path / "bin"
    names.mkdir()
    for name in ("podwire", "podwire-ipam"):
        (names / name).symlink_to((podwire_bin / name).readlink())

    def run(
        verb: str,
        network: str,
        pod: Namespace,
        *,
        check: bool = True,
        env: dict[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        variables = {
            "CNI_PATH": f"{names}:{DEBIAN_REFERENCE}",
            "NETCONFPATH": str(tmp_path / "net.d"),
            **(env or {}),
        }
        program = go_tools_directory() / "cnitool"
        return node.run([program, verb, network, pod.path], env=variables, check=check)

    return run


@pytest.mark.parametrize(("plugins", "version"), LISTS)
def test_add_check_use_del_leaves_nothing(
    cnitool: Cnitool,
    write_network: WriteNetwork,
    node: Node,
    make_pod: Callable[[], Namespace],
    held: Held,
    plugins: list[dict[str, Any]],
    version: str,
) -> None:
    write_network("pods", *plugins, version=version)
    one, other = make_pod(), make_pod()
    before = snapshot(one)
    results = [json.loads(cnitool("add", "pods", pod).stdout) for pod in (one, other)]
    assert [result["cniVersion"] for result in results] == [version, version]
    for pod in (one, other):
        cnitool("check", "pods", pod)
    for ip in results[1]["ips"]:
        server = other.echo("tcp", ip["address"].split("/")[0])
        assert one.exchange(server)
    assert len(held()) == 4
    for pod in (one, other):
        cnitool("del", "pods", pod)
    assert held() == []
    assert {link["ifname"] for link in node.ip("link show")} <= {"lo", "eth0", "cni0"}
    left = [line for line in changes(before, snapshot(one)) if "eth0" in line]
    assert left == []


def test_del_twice_and_del_of_a_vanished_pod_succeed(
    cnitool: Cnitool, write_network: WriteNetwork, pod: Namespace, held: Held
) -> None:
    write_network("pods", BRIDGE)
    cnitool("add", "pods", pod)
    pod.remove()
    cnitool("del", "pods", pod)
    cnitool("del", "pods", pod)
    assert held() == []


def test_check_names_what_is_missing(
    cnitool: Cnitool, write_network: WriteNetwork, pod: Namespace
) -> None:
    write_network("pods", BRIDGE)
    cnitool("add", "pods", pod)
    pod.ip_batch("address del 10.40.0.2/24 dev eth0")
    failed = cnitool("check", "pods", pod, check=False)
    assert failed.returncode != 0
    assert "10.40.0.2" in failed.stderr


def test_gc_deletes_what_cnitool_knows_and_spares_what_no_list_names(
    cnitool: Cnitool,
    write_network: WriteNetwork,
    node: Node,
    make_pod: Callable[[], Namespace],
    held: Held,
) -> None:
    """cnitool's GC deletes all attachments in libcni's cache, then asks the plugin for a GC
    without the list of valid attachments: podwire spares pods that it sees alive then."""
    write_network("pods", BRIDGE)
    unknown, *known = (make_pod() for _ in range(3))
    cnitool("add", "pods", unknown)
    node.run(["rm", "-r", "/var/lib/cni/results"])
    for pod in known:
        cnitool("add", "pods", pod)
    assert cnitool("gc", "pods", known[0]).returncode == 0
    assert [pod.link("eth0") is None for pod in (unknown, *known)] == [False, True, True]
    assert len(held()) == 2


def test_status_is_good_then_tells_of_a_full_range(
    cnitool: Cnitool, write_network: WriteNetwork, make_pod: Callable[[], Namespace]
) -> None:
    tiny = {**PTP, "ipam": {"ranges": [[{"subnet": "10.40.0.0/30"}]]}}
    write_network("pods", tiny)
    pod = make_pod()
    assert cnitool("status", "pods", pod).returncode == 0
    cnitool("add", "pods", pod)
    refused = cnitool("add", "pods", make_pod(), check=False)
    assert refused.returncode != 0
    assert "no address is free" in refused.stderr


def test_capabilities_and_arguments_arrive(
    cnitool: Cnitool, write_network: WriteNetwork, make_pod: Callable[[], Namespace]
) -> None:
    write_network("pods", {**BRIDGE, "capabilities": {"mac": True, "ips": True}})
    wish = {"mac": "02:11:22:33:44:55", "ips": ["10.40.0.77"]}
    pod, other = make_pod(), make_pod()
    result = json.loads(cnitool("add", "pods", pod, env={"CAP_ARGS": json.dumps(wish)}).stdout)
    assert "10.40.0.77/24" in [ip["address"] for ip in result["ips"]]
    assert (pod.link("eth0") or {})["address"] == "02:11:22:33:44:55"
    named = {"CNI_ARGS": "IgnoreUnknown=1;IP=10.40.0.78;K8S_POD_NAME=web"}
    assert "10.40.0.78/24" in cnitool("add", "pods", other, env=named).stdout
