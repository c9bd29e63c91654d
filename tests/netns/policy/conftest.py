"""Two nodes whose daemons read policies from one folder, and pods on both."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster, Member, cluster, eventually
from tests.pytest_netns import Namespace
from tests.pytest_netns.traffic import REPLY_TIMEOUT, EchoServer, Protocol

__all__ = ["cluster"]

Object = dict[str, Any]
PORTS = {"web": 80, "admin": 81}
FAMILIES = (4, 6)
MODES = ["ptp", "bridge"]


@dataclass
class Pod:
    """A pod: where it runs, what it is called, what it serves."""

    member: Member
    namespace: str
    name: str
    ns: Namespace
    container: str
    addresses: dict[int, str]
    labels: dict[str, str]
    servers: dict[tuple[Protocol, int, int], EchoServer]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def object(self) -> Object:
        """As the API has it."""
        ports = [{"name": n, "protocol": "TCP", "containerPort": p} for n, p in PORTS.items()]
        return {
            "kind": "Pod",
            "metadata": {"namespace": self.namespace, "name": self.name, "labels": self.labels},
            "spec": {"containers": [{"ports": ports}]},
            "status": {"podIPs": [{"ip": address} for address in self.addresses.values()]},
        }

    def reaches(
        self, other: Pod, protocol: Protocol = "tcp", port: int = 80, family: int = 4
    ) -> bool:
        """Whether a new connection succeeds, soon."""
        return self.ns.reaches(other.servers[protocol, port, family])

    def connects(
        self, other: Pod, protocol: Protocol = "tcp", port: int = 80, family: int = 4
    ) -> bool:
        """Whether one succeeds, as it must: it has the time that a busy machine needs."""
        server = other.servers[protocol, port, family]
        return self.ns.reaches(server, seconds=REPLY_TIMEOUT)


class World:
    """The nodes, their pods and the folder of policies."""

    def __init__(self, members: Iterable[Member], folder: Path, plugin: Path) -> None:
        self.members, self.folder, self.plugin = [*members], folder, plugin
        self.pods: list[Pod] = []

    def pod(self, member: Member, namespace: str, name: str, **labels: str) -> Pod:
        """A pod with its servers; its object is written where `write_pods` is called."""
        eventually(member.conflist.exists)
        ns, container = member.make_pod(), f"c{len(self.pods)}"
        args = f"K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}"
        answer = member.node.cni(
            "ADD", self.plugin, member.conf(), container_id=container, netns=ns.path, args=args
        )
        assert answer.code == 0, (answer, member.log)
        addresses = {6 if ":" in a else 4: a.partition("/")[0] for a in answer.addresses}
        servers: dict[tuple[Protocol, int, int], EchoServer] = {}
        for port in PORTS.values():
            for family, address in addresses.items():
                servers["tcp", port, family] = ns.echo("tcp", address, port)
        for family, address in addresses.items():
            servers["udp", 53, family] = ns.echo("udp", address, 53)
        made = Pod(member, namespace, name, ns, container, addresses, labels, servers)
        self.pods.append(made)
        return made

    def write(self, name: str, *things: Object) -> None:
        """A file of objects in the folder, replaced as a whole."""
        fresh = self.folder / f"{name}.new"
        fresh.write_text("\n---\n".join(map(json.dumps, things)))
        fresh.rename(self.folder / f"{name}.yaml")

    def write_pods(self, **namespaces: dict[str, str]) -> None:
        """The objects of all pods, and of namespaces with their labels."""
        spaces = [
            {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            for name, labels in namespaces.items()
        ]
        self.write("objects", *spaces, *(pod.object for pod in self.pods))

    def enforce(self, *policies: Object) -> None:
        """These policies and no others, in the kernels of all nodes."""
        self.write("policies", *policies)
        for member in self.members:
            eventually(partial(self.knows, member, policies))

    def knows(self, member: Member, policies: Iterable[Object]) -> object:
        """True where the daemon saved these policies, which it does after it enforced them."""
        try:
            found = json.loads(member.saved_policies.read_text())["items"]
        except (OSError, ValueError):
            return member.log
        saved = [t["spec"] for t in found if t["kind"] == "NetworkPolicy"]
        return sorted(map(str, saved)) == sorted(str(p["spec"]) for p in policies) or found

    def expect(
        self, wanted: set[tuple[str, str]], protocol: Protocol = "tcp", port: int = 80
    ) -> None:
        """The first pod reaches the second in these pairs alone, in both families."""

        def succeeds(tried: tuple[Pod, Pod, int]) -> bool:
            one, other, family = tried
            must = (str(one), str(other)) in wanted
            return (one.connects if must else one.reaches)(other, protocol, port, family)

        pairs = [(a, b) for a in self.pods for b in self.pods if a is not b]
        tries = [(a, b, family) for a, b in pairs for family in FAMILIES]
        with ThreadPoolExecutor(32) as pool:
            done = [*pool.map(succeeds, tries)]
        for family in FAMILIES:
            attempts = zip(tries, done, strict=True)
            found = {(str(a), str(b)) for (a, b, f), ok in attempts if ok and f == family}
            assert found == wanted, family


def policy(namespace: str, name: str, **spec: Any) -> Object:
    """A NetworkPolicy."""
    metadata = {"namespace": namespace, "name": name}
    return {"kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}, **spec}}


def labelled(**labels: str) -> Object:
    """A selector."""
    return {"matchLabels": labels}


@pytest.fixture
def mode() -> str:
    """How the first node attaches its pods."""
    return "ptp"


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path, podwire_bin: Path, mode: str) -> World:
    """Two nodes with an empty folder of policies; the second one has routed pairs."""
    folder = tmp_path / "policies"
    folder.mkdir()
    members = [cluster.prepare() for _ in range(2)]
    cluster.write()
    for member, its in zip(members, (mode, "ptp"), strict=True):
        conflist = {"path": str(member.conflist), "mode": its}
        member.start(policy={"dir": str(folder)}, health=False, conflist=conflist)
    cluster.settle()
    return World(members, folder, podwire_bin / "podwire")
