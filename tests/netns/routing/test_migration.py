"""Nodes change from another network plugin to podwire while their pods run."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.netns.routing.predecessors import DEBIAN, FLANNEL, KINDNET, Place, Plugin
from tests.pytest_netns import Namespace

RESULTS = "/var/lib/cni/results"


@dataclass
class Pod:
    """A pod that a plugin attached; name: of its container."""

    name: str
    ns: Namespace
    addresses: list[str]


def place(member: Member) -> Place:
    four, six = member.cidrs
    return Place(member.number, member.node.addresses, {4: four, 6: six})


@dataclass
class Migration:
    """Two nodes with another plugin's pods, and podwire's daemon once it was started."""

    cluster: Cluster
    plugin: Plugin
    podwire: Path
    members: tuple[Member, Member]
    make_pod: Callable[[], Namespace]
    pods: list[Pod] = field(default_factory=list)

    def attach(self, member: Member) -> Pod:
        """A pod of the other plugin's, with the notes that libcni and flannel's plugin keep."""
        pod = Pod(f"old{len(self.pods)}", self.make_pod(), [])
        run, whole = member.node.run, self.plugin.conflist(place(member))
        named = {"cniVersion": whole["cniVersion"], "name": whole["name"]}
        conf = {**named, **whole["plugins"][0]}
        answer = self.cni(member, "ADD", DEBIAN / conf["type"], conf, pod)
        pod.addresses = [a.partition("/")[0] for a in answer.addresses]
        ports = [{"hostPort": 8000 + len(self.pods), "containerPort": 80, "protocol": "tcp"}]
        given = {"runtimeConfig": {"portMappings": ports}, "prevResult": answer.json}
        chained = {**named, **whole["plugins"][1], **given}
        self.cni(member, "ADD", DEBIAN / "portmap", chained, pod)
        args = [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", pod.name]]
        noted = {"kind": "cniCacheV1", "containerId": pod.name, "ifName": "eth0", "cniArgs": args}
        run(["mkdir", "-p", RESULTS, "/var/lib/cni/flannel"])
        cache = f"{RESULTS}/{self.plugin.network}-{pod.name}-eth0"
        run(["tee", cache], stdin=json.dumps({**noted, "networkName": self.plugin.network}))
        if self.plugin is FLANNEL:
            run(["tee", f"/var/lib/cni/flannel/{pod.name}"], stdin=json.dumps(conf))
        self.pods.append(pod)
        return pod

    def attach_new(self, member: Member, name: str) -> Pod:
        """A pod of podwire's."""
        pod = Pod(name, self.make_pod(), [])
        answer = self.cni(member, "ADD", self.podwire, member.conf(), pod)
        pod.addresses = [a.partition("/")[0] for a in answer.addresses]
        return pod

    def cni(self, member: Member, verb: str, plugin: Path, conf: dict[str, Any], pod: Pod) -> Any:
        answer = member.node.cni(verb, plugin, conf, container_id=pod.name, netns=pod.ns.path)
        assert answer.code == 0, answer
        return answer

    def left_of(self, member: Member, pod: Pod) -> list[str]:
        """What of the node names a pod, or one of its addresses."""
        words = "|".join((pod.name, *(f"{a}([^0-9.:]|$)" for a in pod.addresses)))
        show = "nft list ruleset; ip route; ip -6 route; find /var/lib/cni /run/cni-ipam-state"
        found = member.node.run(
            ["sh", "-c", f"({show}) 2>/dev/null | grep -E '{words}'"], check=False
        )
        return found.stdout.splitlines()


@pytest.fixture(params=[FLANNEL, KINDNET], ids=lambda plugin: plugin.name)
def migration(request: pytest.FixtureRequest, cluster: Cluster, podwire_bin: Path) -> Migration:
    plugin: Plugin = request.param
    members = cluster.join(start=False), cluster.join(start=False)
    changes = {m.name.replace("-", "_"): {"podCIDRs": plugin.cidrs(place(m))} for m in members}
    cluster.write(**changes)
    for member, peer in (members, members[::-1]):
        for command in plugin.commands(place(member), [place(peer)]):
            member.node.run(command.split())
        (member.folder / plugin.file).write_text(json.dumps({"name": plugin.network}))
    return Migration(cluster, plugin, podwire_bin / "podwire", members, members[0].make_pod)


def connect(stack: ExitStack, client: Pod, server: Pod) -> Callable[[], bool]:
    """A connection between pods; whether bytes pass in both directions."""
    listener = stack.enter_context(server.ns.socket(socket.AF_INET, socket.SOCK_STREAM))
    listener.bind((server.addresses[0], 0))
    listener.listen()
    listener.settimeout(30)
    near = stack.enter_context(client.ns.socket(socket.AF_INET, socket.SOCK_STREAM))
    near.settimeout(30)
    near.connect(listener.getsockname())
    far, peer = listener.accept()
    stack.enter_context(far)
    far.settimeout(30)
    assert peer[0] == client.addresses[0]

    def is_alive() -> bool:
        near.sendall(b"ping")
        asked = far.recv(4) == b"ping"
        far.sendall(b"pong")
        return asked and near.recv(4) == b"pong"

    return is_alive


def is_set_aside(member: Member, plugin: Plugin) -> object:
    return not (member.folder / plugin.file).exists() or member.log


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_pods_run_on_and_go_one_by_one(migration: Migration, stack: ExitStack) -> None:
    one, two = migration.members
    old, far = [migration.attach(one) for _ in range(2)], migration.attach(two)
    alive = [connect(stack, old[0], far), connect(stack, old[0], old[1])]
    assert all(check() for check in alive)

    # The other plugin's daemon is gone. podwire's starts on both nodes.
    for member in migration.members:
        settings = {"path": str(member.conflist), "exclusive": True, "mode": migration.plugin.mode}
        member.start(migrateFrom=migration.plugin.name, conflist=settings)
    for member, peer in ((one, two), (two, one)):
        eventually(partial(member.has_routes, set(migration.plugin.cidrs(place(peer)))))
        eventually(member.conflist.exists)
        eventually(partial(is_set_aside, member, migration.plugin))
    assert all(check() for check in alive)
    eventually(lambda: "2 pods were attached by another plugin" in one.fault("unwired"))

    # New pods are podwire's. They get no address of those that run, and reach them.
    new = [migration.attach_new(one, f"new{n}") for n in range(3)]
    taken = [a for pod in (*old, *new) for a in pod.addresses]
    assert len(taken) == len(set(taken)) == 5 * len(migration.plugin.families)
    for address in (*old[0].addresses, *far.addresses):
        assert new[0].ns.ping(address), address
    for address in new[1].addresses:
        assert old[1].ns.ping(address), address
        assert far.ns.ping(address), address

    # The runtime deletes an old one by the configuration that it has now.
    migration.cni(one, "DEL", migration.podwire, one.conf(), old[1])
    assert old[1].ns.link("eth0") is None
    assert migration.left_of(one, old[1]) == []
    assert migration.left_of(one, old[0]) != []
    assert alive[0]()
    migration.cni(one, "DEL", migration.podwire, one.conf(), old[0])
    assert migration.left_of(one, old[0]) == []
    history = "\n".join(f"{r['action']} {r['object']} {r['cause']}" for r in one.history())
    assert f"migrateFrom: {migration.plugin.name}" in history
    eventually(one.is_in_sync)
