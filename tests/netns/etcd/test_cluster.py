"""Whole daemons that find each other in etcd: leases, routes, pods that talk."""

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.netns.etcd.server import Etcd
from tests.netns.routing.conftest import Cluster, Member, cluster, eventually
from tests.netns.routing.traffic import Stream, address, reach
from tests.pytest_netns.underlay import Underlay

__all__ = ["cluster"]


@pytest.fixture
def outside(underlay: Underlay, tmp_path: Path) -> Iterator[Etcd]:
    """An etcd on the nodes' network."""
    made = Etcd(underlay.ns, underlay.gateway(4), tmp_path / "etcd")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def join(cluster: Cluster, etcd: Etcd, **settings: object) -> Member:
    """A node more, with both of its addresses published."""
    member = cluster.prepare()
    source = {"etcd": etcd.settings(**{"addresses": member.addresses, **settings})}
    member.start(source=source, dataDir=str(member.folder / "data"))
    return member


def leased(member: Member, count: int = 2) -> object:
    """True where it has that many subnets."""
    return len(member.status().get("prefixes", ())) == count or member.log


def has_kept(member: Member) -> object:
    """True where the state of the cluster with this node's peer is on its disk."""
    path = member.folder / "data/cluster.json"
    return (path.exists() and path.read_text().count("10.244.") > 2) or member.log


def borrows(member: Member) -> object:
    """True where it routes by what an earlier daemon knew, and reports that."""
    fault = member.fault("source")
    return "its last known state is of" in fault or (fault, member.log)


def settle(*members: Member) -> None:
    """Wait until all have subnets, and routes to those of all others."""
    for member in members:
        eventually(partial(leased, member))
    for member in members:
        others = {p for m in members if m is not member for p in m.status()["prefixes"]}
        eventually(partial(member.has_routes, others))
        eventually(member.is_in_sync)


def test_two_nodes_whose_pods_talk(cluster: Cluster, outside: Etcd, podwire_bin: Path) -> None:
    members = [join(cluster, outside) for _ in range(2)]
    settle(*members)
    one, two = (m.attach(podwire_bin / "podwire") for m in members)
    assert reach(one, two)
    third = join(cluster, outside)
    settle(*members, third)
    assert reach(third.attach(podwire_bin / "podwire"), one)
    assert members[0].status()["source"] == "etcd"


def test_the_address_towards_etcd_is_the_nodes(cluster: Cluster, outside: Etcd) -> None:
    members = [join(cluster, outside, addresses=[], clusterCIDRs=["10.244.0.0/16"])
               for _ in range(2)]  # fmt: skip
    for member in members:
        eventually(partial(leased, member, 1))
    for member in members:
        key = f"/podwire/v1/nodes/{member.name}"
        record = json.loads(outside.entries()[key])
        assert record["addresses"] == [member.node.address(4)]


def test_a_node_that_gets_another_address_is_reached_by_it(
    cluster: Cluster, outside: Etcd, podwire_bin: Path
) -> None:
    source = {"addresses": [], "clusterCIDRs": ["10.244.0.0/16"]}
    members = [join(cluster, outside, **source) for _ in range(2)]
    for member in members:
        eventually(partial(leased, member, 1))
    node = members[1].node
    before, after = node.address(4), "192.0.2.77"
    eventually(lambda: members[0].fdb() == {before} or members[0].log)
    node.ns.ip_batch(f"address del {before}/24 dev eth0\naddress add {after}/24 dev eth0\n")
    eventually(lambda: members[0].fdb() == {after} or members[0].log, 60)
    one, two = (m.attach(podwire_bin / "podwire") for m in members)
    assert one.ping(address(two))


def test_pods_talk_while_etcd_is_gone_and_the_daemons_start_anew(
    cluster: Cluster, outside: Etcd, podwire_bin: Path
) -> None:
    members = [join(cluster, outside) for _ in range(2)]
    settle(*members)
    prefixes = [m.status()["prefixes"] for m in members]
    one, two = (m.attach(podwire_bin / "podwire") for m in members)
    assert reach(one, two)
    for member in members:  # what is killed writes nothing at its end
        eventually(partial(has_kept, member))
    stream = Stream(one, two)
    outside.stop()
    eventually(lambda: "since" in members[0].fault("source") or members[0].log)
    for member, number in zip(members, (signal.SIGTERM, signal.SIGKILL), strict=True):
        member.stop(number)
        member.start()
    for member in members:
        eventually(partial(borrows, member))
    outside.members[0].start()
    outside.wait()
    settle(*members)
    assert stream.lost() == 0
    assert [m.status()["prefixes"] for m in members] == prefixes


def test_a_node_that_reboots_while_etcd_is_gone_has_its_routes(
    cluster: Cluster, outside: Etcd
) -> None:
    members = [join(cluster, outside) for _ in range(2)]
    settle(*members)
    one, two = members
    expected = set(two.status()["prefixes"])
    eventually(partial(has_kept, one))
    one.stop()
    outside.stop()
    one.node.run(["ip", "link", "del", "podwire-vxlan"])
    eventually(lambda: one.routes() == set() or one.routes())
    one.start()
    eventually(partial(one.has_routes, expected))


def test_cleanup_gives_the_lease_back(cluster: Cluster, outside: Etcd) -> None:
    one, two = members = [join(cluster, outside) for _ in range(2)]
    settle(*members)
    two.stop()
    config = two.folder / "podwired.yaml"
    done = two.node.run([two.podwirectl, "cleanup", "--yes", "--config", config])
    assert "removed lease of 10.244." in done.stdout
    eventually(partial(one.has_routes, set()))
    assert [k for k in outside.entries() if "node-2" in k] == []


def test_a_node_cut_off_for_longer_than_its_lease_says_that_it_lost_its_subnet(
    cluster: Cluster, outside: Etcd, podwire_bin: Path
) -> None:
    """Its pod stays, and no pod gets an address of another node's subnet."""
    scarce = {"clusterCIDRs": ["10.244.0.0/24"], "leaseSeconds": 60}
    one = join(cluster, outside, addresses=["192.0.2.11"], **scarce)
    eventually(partial(leased, one, 1))
    eventually(lambda: one.conflist.exists())
    one.attach(podwire_bin / "podwire")
    one.node.ns.ip_batch("link set eth0 down\n")
    eventually(lambda: not outside.entries("/podwire/v1/nodes"), 150)
    two = join(cluster, outside, addresses=["192.0.2.12"], **scarce)
    eventually(partial(leased, two, 1))
    one.node.ns.ip_batch("link set eth0 up\n")
    words = "subnet 10.244.0.0/24 of this node was leased to node-2"
    eventually(lambda: words in one.fault("source") or one.log, 60)
    eventually(partial(leased, one, 0))
    assert outside.entries()["/podwire/v1/subnets/ipv4/10.244.0.0-24"] == "node-2"
    # The remedy in the fault works.
    one.stop()
    one.node.run([one.podwirectl, "cleanup", "--yes", "--config", one.folder / "podwired.yaml"])
    two.stop()
    two.node.run([two.podwirectl, "cleanup", "--yes", "--config", two.folder / "podwired.yaml"])
    one.start()
    eventually(partial(leased, one, 1))
