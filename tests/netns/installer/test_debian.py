"""The Debian package: installed, refused removal while a pod runs, removed, purged."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import ROOT
from tests.pytest_netns import MakeNamespace, Node

# The package is built in /opt/podwire, which is this machine's.
pytestmark = pytest.mark.xdist_group("debian package")

CONF = {
    "cniVersion": "1.0.0", "name": "net", "type": "podwire",
    "ipam": {"ranges": [[{"subnet": "10.88.0.0/24"}]]},
}  # fmt: skip


@dataclass
class Machine:
    """This machine with a layer over its files, on a node: what changes there stays there."""

    node: Node
    root: Path
    layer: Path

    def run(
        self, *words: str | Path, stdin: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        argv: list[str | Path] = ["chroot", self.root, *words]
        return self.node.run(argv, stdin=stdin, env=env, check=False)

    def changed(self) -> set[str]:
        """Files that differ from this machine's, but for dpkg's own."""
        argv: list[str | Path] = ["find", self.layer, "-not", "-type", "d", "-printf", "%P\\n"]
        found = set(self.node.run(argv).stdout.split())
        return {f for f in found if not f.startswith(("var/lib/dpkg/", "var/log/", "tmp/", "dev/"))}

    def cni(
        self, command: str, netns: Path, previous: object = None
    ) -> subprocess.CompletedProcess[str]:
        """A call of the installed plugin, as a runtime makes it."""
        conf = {**CONF, "prevResult": previous} if previous else CONF
        return self.run(
            "/opt/cni/bin/podwire", stdin=json.dumps(conf),
            CNI_COMMAND=command, CNI_CONTAINERID="c1", CNI_IFNAME="eth0",
            CNI_NETNS=str(netns), CNI_PATH="/opt/cni/bin",
        )  # fmt: skip


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    argv = [ROOT / "packaging" / "debian" / "build", folder]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("podwire_*.deb")
    return found


@pytest.fixture
def machine(node: Node, tmp_path: Path) -> Machine:
    layers, root = tmp_path / "layers", tmp_path / "root"
    for path in (layers, root):
        path.mkdir()
    node.run(["mount", "-t", "tmpfs", "podwire-test", layers])
    node.run(["mkdir", layers / "upper", layers / "work"])
    options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
    node.run(["mount", "-t", "overlay", "podwire-test", "-o", options, root])
    for place in ("/proc", "/run", "/run/netns", "/tmp", "/sys", "/dev"):
        node.run(["mount", "--rbind", place, f"{root}{place}"])
    return Machine(node, root, layers / "upper")


SYSTEMCTL = """#!/bin/sh
echo "$@" >>/run/systemctl-calls
"""
"""systemd itself cannot run in here: what it is asked to do is noted; each unit is enabled."""


def asked(machine: Machine) -> list[str]:
    """What systemd was asked to do since the last time."""
    calls = machine.run("cat", "/run/systemctl-calls").stdout.splitlines()
    machine.run("rm", "-f", "/run/systemctl-calls")
    return calls


def install_with_systemd(machine: Machine, package: Path) -> None:
    machine.run("tee", "/usr/bin/systemctl", stdin=SYSTEMCTL)
    machine.run("mkdir", "-p", "/run/systemd/system", "/etc/podwire")
    done = machine.run("dpkg", "--install", package)
    assert done.returncode == 0, done.stderr
    assert "restart podwired" in asked(machine)


@pytest.mark.timeout(600)
def test_a_removal_that_fails_leaves_the_daemon_as_it_was(machine: Machine, package: Path) -> None:
    install_with_systemd(machine, package)
    record = Path("/var/lib/podwire/install.json")
    whole = machine.run("cat", record).stdout
    machine.run("tee", record, stdin="{")
    failed = machine.run("dpkg", "--remove", "podwire")
    assert failed.returncode != 0
    assert f"{record} is damaged" in failed.stderr
    calls = asked(machine)
    assert not [call for call in calls if "disable" in call]
    assert calls.index("stop podwired") < calls.index("start podwired")
    assert machine.run("dpkg-query", "-W", "-f", "${Status}", "podwire").stdout.endswith(
        "installed"
    )

    machine.run("tee", record, stdin=whole)
    assert machine.run("dpkg", "--remove", "podwire").returncode == 0
    assert asked(machine)[:2] == ["stop podwired", "--quiet disable podwired"]


@pytest.mark.timeout(600)
def test_a_removal_succeeds_where_the_cluster_is_gone(machine: Machine, package: Path) -> None:
    install_with_systemd(machine, package)
    source = {"kubernetes": {"kubeconfig": "/etc/kubernetes/gone", "clusterCIDRs": ["10.1.0.0/16"]}}
    config = json.dumps({"node": "node-1", "source": source})
    machine.run("tee", "/etc/podwire/podwired.yaml", stdin=config)
    done = machine.run("dpkg", "--remove", "podwire")
    assert done.returncode == 0, done.stderr
    assert "NodeNetwork podwire/node-1 stays until its Node is deleted" in done.stderr
    assert not [f for f in machine.changed() if f.startswith("opt/cni/bin/")]


@pytest.mark.timeout(600)  # an environment is made for it
def test_a_package_on_and_off(machine: Machine, package: Path, netns: MakeNamespace) -> None:
    before = machine.changed()
    done = machine.run("dpkg", "--install", package)
    assert done.returncode == 0, done.stderr
    completions = "usr/share/bash-completion/completions"
    assert {"opt/cni/bin/podwire", f"{completions}/podwirectl"} <= machine.changed()
    assert machine.run("podwired", "--version").stdout.startswith("podwired ")

    pod = netns("pod")
    added = machine.cni("ADD", pod.path)
    assert added.returncode == 0, added.stdout
    result = json.loads(added.stdout)
    assert "1 pod of podwire runs on this node" in machine.run("dpkg", "--remove", "podwire").stderr
    again = machine.run("dpkg", "--install", package)
    assert again.returncode == 0, again.stderr
    assert machine.cni("CHECK", pod.path, result).returncode == 0

    assert machine.cni("DEL", pod.path).returncode == 0
    removed = machine.run("dpkg", "--remove", "podwire")
    assert removed.returncode == 0, removed.stderr
    left = machine.changed() - before
    assert {f for f in left if not f.startswith("var/lib/podwire/")} == set()
    assert left
    assert machine.run("dpkg", "--purge", "podwire").returncode == 0
    assert machine.changed() == before
