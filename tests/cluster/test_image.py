"""The image, and podwire.yaml: nodes without Python get their network from containers of it."""

from __future__ import annotations

import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.apiserver import PORT, SPACE, ApiServer
from tests.cluster.container import ARCHIVE, DaemonPod, build_image
from tests.cluster.wire import Wire
from tests.netns.routing.conftest import eventually
from tests.netns.routing.traffic import Stream, reach
from tests.pytest_netns import Namespace, Underlay
from tests.pytest_netns.plugin import MakeNamespace, MakeNode

# Without a base, and the packages that are installed on it, this takes minutes.
pytestmark = [
    pytest.mark.needs("podman"),
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("image"),
]

MB = 10**6
# linux/capability.h
DAC_OVERRIDE, NET_BROADCAST, NET_ADMIN, SYS_ADMIN = 1 << 1, 1 << 11, 1 << 12, 1 << 21
KUBE = 1001
"""Another user, whose the runtime's directories may be."""

Pods = tuple[DaemonPod, DaemonPod]


@pytest.fixture(scope="module")
def store() -> Path:
    """Where the image is."""
    return build_image()


@pytest.fixture
def way(api: ApiServer, underlay: Underlay) -> Iterator[Wire]:
    """The API, on the underlay."""

    def make() -> socket.socket:
        return underlay.ns.socket(socket.AF_INET, socket.SOCK_STREAM)

    with api.wire(underlay.gateway(4), PORT, make) as made:
        yield made


@pytest.fixture
def pods(
    store: Path, api: ApiServer, way: Wire, make_node: MakeNode, tmp_path: Path
) -> Iterator[Pods]:
    """The daemons' pods of two nodes, where nothing runs yet."""
    host, port = way.address
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
    made = []
    for number in (1, 2):
        name, node, folder = f"node-{number}", make_node(), tmp_path / f"node-{number}"
        folder.mkdir()
        cidrs = [f"10.244.{number}.0/24", f"fd00:10:244:{number}::/64"]
        api.add_node(name, cidrs, [node.address(4), node.address(6)])
        account = {
            "token": api.issue(name),
            "ca.crt": api.authority.ca.read_text(),
            "namespace": SPACE,
        }
        made.append(DaemonPod(node, name, folder, store, environment, account))
    yield made[0], made[1]
    for pod in made:
        pod.end()


def conflist(pod: DaemonPod) -> Path:
    return pod.place("/etc/cni/net.d") / "05-podwire.conflist"


def call(pod: DaemonPod, verb: str, netns: Namespace, name: str, **more: object) -> dict[str, Any]:
    """What the runtime of the node does, by the files that it finds there."""
    listed = json.loads(conflist(pod).read_text())
    names = {key: listed[key] for key in ("name", "cniVersion")}
    shim = pod.place("/opt/cni/bin") / "podwire"
    conf = {**listed["plugins"][0], **names, **more}
    answer = pod.node.cni(verb, shim, conf, container_id=name, netns=netns.path)
    return answer.json if answer.stdout else {}


def in_sync(pod: DaemonPod) -> object:
    """True where the daemon says that all is as planned, else its log."""
    done = pod.podman("exec", "podwired", "podwirectl", "status", check=False)
    return done.returncode == 0 or (done.stdout, pod.log)


def test_the_image_is_small_and_has_no_tools_to_build(store: Path) -> None:
    assert ARCHIVE.stat().st_size <= 90 * MB
    names = dict[str, int]()
    with tarfile.open(ARCHIVE) as archive:
        index = json.load(archive.extractfile("index.json") or pytest.fail("no index"))
        blob = partial(_open_blob, archive)
        manifest = json.load(blob(index["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"])) as files:
                names |= {entry.name.removeprefix("./"): entry.size for entry in files}
    assert 0 < names["opt/podwire/venv/bin/podwire"] <= 100_000
    programs = {Path(name).name for name in names if "/bin/" in f"/{name}"}
    assert {"podwired", "podwirectl", "python3"} <= programs
    assert not programs & {"gcc", "cc", "musl-gcc", "pip", "pip3", "make"}


def _open_blob(archive: tarfile.TarFile, digest: str) -> Any:
    return archive.extractfile(f"blobs/{digest.replace(':', '/')}")


def test_nodes_get_their_network_from_the_manifest(pods: Pods, netns: MakeNamespace) -> None:
    attached, results = [], []
    for pod in pods:
        pod.install()
        pod.start()
        eventually(conflist(pod).exists)
        attached.append(netns("pod"))
        results.append(call(pod, "ADD", attached[-1], "c1"))
        assert "ips" in results[-1], (results, pod.log)
    for pod in pods:
        eventually(partial(in_sync, pod))
        assert pod.probe("startupProbe")
        assert pod.probe("livenessProbe")
        assert pod.probe("readinessProbe")
    assert reach(*attached)
    one = pods[0]
    # Settings of the node are kept, though the container's own /proc/sys is read-only.
    one.node.ns.sysctl("ipv4/ip_forward", "0")
    eventually(lambda: one.node.ns.sysctl("ipv4/ip_forward") == "1")
    assert call(one, "CHECK", attached[0], "c1", prevResult=results[0]) == {}
    assert call(one, "DEL", attached[0], "c1") == {}
    assert attached[0].link("eth0") is None


def test_executables_are_installed_and_kept(pods: Pods, netns: MakeNamespace) -> None:
    one, two = (pod.place("/opt/cni/bin") for pod in pods)
    two.mkdir(parents=True)
    (two / "loopback").write_text("another's")
    one.mkdir(parents=True)
    os.chown(one, KUBE, KUBE)
    for pod in pods:
        pod.install()
        pod.start()
    assert (two / "loopback").read_text() == "another's"
    conf = {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}
    late = netns("pod")

    def is_done() -> object:
        done = pods[0].node.cni("ADD", one / "loopback", conf, netns=late.path, ifname="lo")
        return done.code == 0 or done

    eventually(is_done)
    # A package that is upgraded may empty the directory.
    (one / "podwire").unlink()
    eventually((one / "podwire").exists)
    assert (one / "podwire").stat().st_mode & 0o777 == 0o755


def test_the_daemon_has_few_rights(pods: Pods) -> None:
    one = pods[0]
    one.start()
    lines = one.execute("cat", "/proc/1/status").splitlines()
    found = dict(line.split(":\t") for line in lines if ":\t" in line)
    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert int(found[kind], 16) == DAC_OVERRIDE | NET_BROADCAST | NET_ADMIN | SYS_ADMIN
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    for path in ("/opt/podwire/written", "/proc/sys/net/ipv4/ip_forward"):
        done = one.podman("exec", "podwired", "cp", "/dev/null", path, check=False)
        assert "Read-only file system" in done.stderr


def test_a_daemon_is_replaced_without_losing_a_packet(pods: Pods, netns: MakeNamespace) -> None:
    attached = []
    for pod in pods:
        pod.install()
        pod.start()
        eventually(conflist(pod).exists)
        attached.append(netns("pod"))
        assert "ips" in call(pod, "ADD", attached[-1], "c1")
    eventually(lambda: reach(*attached))
    one = pods[0]
    stream = Stream(attached[0], attached[1])
    assert one.stop() == 0
    # A node without Python has the shim alone: the runtime is asked to try again.
    late = netns("pod")
    assert call(one, "ADD", late, "c2")["code"] == 11
    one.install()
    one.start()
    eventually(_is_added(one, late))
    assert reach(late, attached[1])
    assert stream.lost() == 0


def _is_added(pod: DaemonPod, netns: Namespace) -> Callable[[], object]:
    """The check that a runtime's next try succeeds."""

    def check() -> object:
        answer = call(pod, "ADD", netns, "c2")
        return "ips" in answer or (answer, pod.log)

    return check
