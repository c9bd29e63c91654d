"""Three nodes that learn of each other by Kubernetes: real daemons, pods, packets."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.apiserver import PORT, SPACE, ApiServer
from tests.cluster.follower import CLUSTER
from tests.cluster.rest import MERGE, place_of
from tests.cluster.wire import Wire
from tests.netns.routing.conftest import Member, eventually
from tests.netns.routing.traffic import Stream, reach
from tests.pytest_netns import Namespace, Underlay
from tests.pytest_netns.plugin import MakeNamespace, MakeNode

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its service account."""


def is_well(member: Member) -> object:
    """True where all is as it should be, else what the daemon says."""
    said = member.status()
    return bool(said.get("inSync")) or (said, member.log)


class Nodes:
    """The nodes of a cluster whose API listens on the underlay."""

    def __init__(
        self, api: ApiServer, wire: Wire, folder: Path, make_node: MakeNode, podwired: Path,
        namespaces: MakeNamespace,
    ) -> None:  # fmt: skip
        self.api, self.wire = api, wire
        self.members: list[Member] = []
        self._folder, self._make_node, self._podwired = folder, make_node, podwired
        self._namespaces = namespaces

    def join(self) -> Member:
        """A node more, with its Node object, its account and its daemon."""
        number = len(self.members) + 1
        name, folder = f"node-{number}", self._folder / f"node-{number}"
        folder.mkdir()
        pods = self._namespaces
        member = Member(
            self._make_node(), name, number, folder, self._podwired, lambda: pods("pod")
        )
        member.settings = {
            "node": name,
            "source": {"kubernetes": {"clusterCIDRs": list(CLUSTER)}},
            "conflist": {"path": str(member.conflist)},
            "journal": {"path": str(folder / "journal.jsonl")},
        }
        host, port = self.wire.address
        member.environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}
        self.api.add_node(name, member.cidrs, member.addresses)
        self._give_account(member)
        self.members.append(member)
        member.start()
        return member

    def _give_account(self, member: Member) -> None:
        """What the kubelet mounts into a pod of the DaemonSet."""
        files = {
            "token": self.api.issue(member.name),
            "ca.crt": self.api.authority.ca.read_text(),
            "namespace": SPACE,
        }
        member.node.run(["mkdir", "-p", ACCOUNT])
        for name, text in files.items():
            member.node.run(["tee", f"{ACCOUNT}/{name}"], stdin=text)

    def settle(self, *members: Member) -> None:
        """Wait until these have routes to each other alone, and say that all is well."""
        for member in members:
            others = {cidr for m in members if m is not member for cidr in m.cidrs}
            eventually(partial(member.has_routes, others), 60)
            eventually(partial(is_well, member), 60)


@pytest.fixture
def way(api: ApiServer, underlay: Underlay) -> Iterator[Wire]:
    """The API, on the underlay."""

    def make() -> socket.socket:
        return underlay.ns.socket(socket.AF_INET, socket.SOCK_STREAM)

    with api.wire(underlay.gateway(4), PORT, make) as made:
        yield made


@pytest.fixture
def nodes(
    api: ApiServer, way: Wire, tmp_path: Path, make_node: MakeNode, podwire_bin: Path,
    netns: MakeNamespace,
) -> Iterator[Nodes]:  # fmt: skip
    podwired = (podwire_bin / "podwire").resolve().with_name("podwired")
    made = Nodes(api, way, tmp_path, make_node, podwired, netns)
    yield made
    for member in made.members:
        if member.process is not None:
            member.stop(signal.SIGKILL)


Three = tuple[Member, Member, Member]


@pytest.fixture
def three(nodes: Nodes) -> Three:
    made = nodes.join(), nodes.join(), nodes.join()
    nodes.settle(*made)
    return made


def test_pods_of_three_nodes_reach_each_other(
    nodes: Nodes, three: Three, podwire_bin: Path
) -> None:
    pods = [member.attach(podwire_bin / "podwire") for member in three]
    for one in pods:
        for two in pods:
            assert one is two or reach(one, two), three[0].log
    assert three[0].status()["source"] == "kubernetes"
    assert [m.status()["peers"] for m in three] == [2, 2, 2]


def test_a_node_leaves_and_joins(nodes: Nodes, three: Three, podwire_bin: Path) -> None:
    one, two, three_ = three
    pods = [member.attach(podwire_bin / "podwire") for member in three]
    stream = Stream(pods[0], pods[1])
    three_.stop()
    conf = three_.folder / "podwired.yaml"
    environment = {**three_.environment, "PATH": os.environ["PATH"]}
    done = three_.node.run(
        [three_.podwirectl, "cleanup", "--yes", "--config", conf], env=environment, check=False
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert nodes.api.network(three_.name) is None
    nodes.settle(one, two)
    assert three_.routes() == set()
    three_.start()
    nodes.settle(one, two, three_)
    assert reach(pods[0], pods[2])
    # A Node that is deleted: what it published goes with it (here no controller collects garbage).
    three_.stop(signal.SIGKILL)
    nodes.api.remove("Node", three_.name)
    nodes.api.remove("NodeNetwork", three_.name, SPACE)
    nodes.settle(one, two)
    assert stream.lost() == 0


def reboot(member: Member) -> None:
    """What a reboot leaves of the routing: nothing but the files."""
    member.stop(signal.SIGKILL)
    member.node.run(["ip", "link", "del", "podwire-vxlan"])
    for family in ("-4", "-6"):
        member.node.run(["ip", family, "route", "flush", "proto", "113"], check=False)
    member.node.run(["nft", "delete", "table", "inet", "podwire"])
    assert member.routes() == set()


def remembers(member: Member, all_of_them: Three) -> object:
    """Whether it wrote down what it knows; it does so some ten seconds after a change."""
    known = member.node.run(["cat", "/var/lib/podwire/cluster.json"], check=False).stdout
    return all(f'"{m.name}"' in known for m in all_of_them) or known


def says_that_the_api_is_away(member: Member) -> object:
    said = member.status()
    fault = str(said["faults"].get("source"))
    return "since 20" in fault or f"{fault} {member.log}"


def test_an_outage_harms_nobody(nodes: Nodes, three: Three, podwire_bin: Path) -> None:
    one, two, _ = three
    pods: list[Namespace] = [member.attach(podwire_bin / "podwire") for member in three]
    stream = Stream(pods[0], pods[1])
    nodes.wire.refuse()
    for member in three:
        eventually(partial(says_that_the_api_is_away, member), 60)
        assert member.routes() == {c for m in three if m is not member for c in m.cidrs}
    time.sleep(1)
    assert stream.lost() == 0
    # What others break heals without the API.
    one.node.run(["ip", "route", "del", two.cidrs[0]])
    eventually(partial(one.has_route, two.cidrs[0]))
    one.node.run(["ip", "link", "del", "podwire-vxlan"])
    eventually(partial(one.has_routes, {c for m in three[1:] for c in m.cidrs}))
    assert reach(pods[0], pods[1])
    # A node that comes up meanwhile has its routes from what it knew.
    eventually(partial(remembers, one, three))
    reboot(one)
    one.start()
    eventually(partial(one.has_routes, {c for m in three[1:] for c in m.cidrs}))
    eventually(partial(says_that_the_api_is_away, one), 60)
    assert "last known state" in one.status()["faults"]["source"]
    assert "nothing was received" not in one.log  # that a daemon starts is no error
    eventually(lambda: reach(pods[0], pods[2]) or one.log)
    nodes.wire.listen()
    fourth = nodes.join()
    nodes.settle(*three, fourth)
    assert reach(pods[1], fourth.attach(podwire_bin / "podwire"))
    path = place_of("NodeNetwork", SPACE)
    listed = nodes.api.admin.ask("GET", path).expect(200)["items"]
    assert [o["metadata"]["name"] for o in listed] == [m.name for m in nodes.members]


def test_a_node_that_may_not_know_its_policies_is_not_ready(
    nodes: Nodes, api: ApiServer, podwire_bin: Path
) -> None:
    place = place_of("ClusterRole", "", "podwired")
    role = api.admin.ask("GET", place).expect(200)
    rules = [r for r in role["rules"] if "networkpolicies" not in r["resources"]]
    patch = {"rules": rules}
    api.admin.ask("PATCH", place, patch, kind=MERGE).expect(200)
    try:
        one = nodes.join()
        eventually(lambda: "`policy: false`" in str(one.status().get("fault")) or one.log)
        fault = str(one.status()["fault"])
        assert fault.startswith("network policies are not known yet: ")
        assert "403" in fault
        assert not one.conflist.exists()
    finally:
        api.admin.ask("PATCH", place, {"rules": role["rules"]}, kind=MERGE).expect(200)
    eventually(one.conflist.exists)
    nodes.settle(one)
