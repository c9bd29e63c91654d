"""Three nodes with a pod each, for all faults of a module: each fault is undone after its test."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon.status import read_status
from tests.netns.health.conftest import FAST, expect_well
from tests.netns.routing.conftest import STATUS, Cluster, Member
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node
from tests.pytest_netns.plugin import Registry
from tests.pytest_netns.underlay import Underlay

SEARCH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


def doctor(member: Member, *options: str) -> dict[str, Any]:
    """What `podwirectl doctor` finds."""
    conf = member.folder / "podwired.yaml"
    argv: list[str | Path] = [member.podwirectl, "doctor", "-o", "json", "--config", conf]
    done = member.node.run([*argv, *options], check=False)
    found = json.loads(done.stdout or "{}")
    assert found, (done.stderr, member.log)
    assert done.returncode == (0 if found["ok"] else 1)
    return dict(found)


def status_code(member: Member) -> int:
    """The exit status of `podwirectl status`."""
    conf = member.folder / "podwired.yaml"
    return member.node.run([member.podwirectl, "status", "--config", conf], check=False).returncode


def is_calm(member: Member) -> object:
    """True where the daemon's status has no trouble; read without a program, for it is cheap."""
    assert member.process is not None
    found = read_status(Path(f"/proc/{member.process.pid}/root{STATUS}")).status
    beyond = found.health.lines if found.health else ()
    return not (found.troubles or beyond) or (found, member.log)


@dataclass
class World:
    """The nodes; pods: of each node, by the node's number."""

    one: Member
    two: Member
    three: Member
    cluster: Cluster
    process: subprocess.Popen[bytes] | None = None
    mute: socket.socket | None = None

    @property
    def pod(self) -> Namespace:
        """The pod of the first node."""
        return self.one.pods[0]

    def link(self, number: int) -> str:
        """The node's end of the pair of a node's first pod."""
        links = self.member(number).node.ip("link show type veth")
        names: list[str] = [k["ifname"] for k in links if " id=c1 " in k.get("ifalias", "")]
        return names[0]

    def member(self, number: int) -> Member:
        """A node."""
        return (self.one, self.two, self.three)[number - 1]

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a node's daemon a signal: stopped by SIGSTOP, it heals nothing."""
        process = self.member(number).process
        assert process is not None
        process.send_signal(what)


@dataclass
class Made:
    """Nodes that a module has for its tests."""

    registry: Registry
    stack: ExitStack
    folder: Path
    podwired: Path

    def cluster(self) -> Cluster:
        """An empty cluster, on an underlay of its own."""
        underlay = Underlay(self.namespace("underlay"))

        def make_node(*, mtu: int = 1500) -> Node:
            node = Node(self.namespace("node"), underlay, mtu)
            self.stack.callback(node.remove)
            return node

        made = Cluster(self.folder, make_node, self.podwired, self.namespace)
        self.stack.callback(_kill, made)
        return made

    def namespace(self, label: str) -> Namespace:
        made = self.registry.make(label)
        self.stack.callback(made.remove)
        return made


def _kill(cluster: Cluster) -> None:
    for member in cluster.members:
        if member.process is not None:
            member.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def made(
    netns_registry: Registry, podwire_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    """What makes nodes; they end with the module."""
    podwired = (podwire_bin / "podwire").resolve().with_name("podwired")
    with ExitStack() as stack:
        yield Made(netns_registry, stack, tmp_path_factory.mktemp("nodes"), podwired)


@pytest.fixture(scope="module")
def world(made: Made, podwire_bin: Path) -> World:
    """Three nodes that reach each other, with a pod each; the second one's are on a bridge.

    A second pod of the first node has a port of the node.
    """
    cluster = made.cluster()
    members = [cluster.join(start=False, health=FAST) for _ in range(3)]
    members[1].settings["conflist"]["mode"] = "bridge"
    for member in members:
        member.start()
    expect_well(members)
    plugin = podwire_bin / "podwire"
    for member in members:
        member.attach(plugin)
    pod = members[0].make_pod()
    members[0].pods.append(pod)
    ports = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    conf = {**members[0].conf(), "runtimeConfig": {"portMappings": ports}}
    answer = members[0].node.cni("ADD", plugin, conf, container_id="c9", netns=pod.path)
    assert answer.code == 0, answer
    return World(members[0], members[1], members[2], cluster)
