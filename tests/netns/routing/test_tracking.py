"""Connection tracking on nodes of a cluster: none without masquerade, never of the overlay."""

from functools import partial
from pathlib import Path

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.pytest_netns.underlay import Family

FAMILIES: tuple[Family, ...] = (4, 6)
TRACKING = """
table inet tracking {
  chain prerouting { type filter hook prerouting priority filter; ct state new accept; }
  chain output { type filter hook output priority filter; ct state new accept; }
}
"""


def tracked(member: Member) -> list[str]:
    text = member.node.ns.call(Path("/proc/thread-self/net/nf_conntrack").read_text)
    return text.splitlines()


def leaves_out(member: Member) -> bool:
    """Whether the daemon has the overlay left out."""
    return "notrack" in member.node.run(["nft", "list", "ruleset"]).stdout


def exchange_all(cluster: Cluster, plugin: Path) -> None:
    """Traffic between pods of two nodes, both ways and of both families."""
    one, two = (member.attach(plugin) for member in cluster.members[:2])
    for family in FAMILIES:
        for client, server in ((one, two), (two, one)):
            address = next(a for a in server.addresses("eth0") if (":" in a) == (family == 6))
            for protocol in ("tcp", "udp"):
                client.exchange(server.echo(protocol, address.partition("/")[0]))


@pytest.mark.parametrize("mode", ["ptp", "bridge"])
def test_nodes_without_masquerade_track_nothing(
    cluster: Cluster, podwire_bin: Path, mode: str
) -> None:
    for _ in range(2):
        member = cluster.join(start=False)
        conflist = {"path": str(member.conflist), "ipMasq": False, "mode": mode}
        member.start(conflist=conflist)
    cluster.settle()
    exchange_all(cluster, podwire_bin / "podwire")
    for member in cluster.members:
        assert tracked(member) == []
        assert not leaves_out(member)


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_the_overlay_itself_is_not_tracked(cluster: Cluster, podwire_bin: Path, outer: str) -> None:
    """Whoever has the kernel track connections: podwire's masquerade, and others here."""
    for _ in range(2):
        member = cluster.join(underlay=outer)
        member.node.ns.run(["nft", "-f", "-"], stdin=TRACKING)
    cluster.settle()
    for member in cluster.members:
        eventually(partial(leaves_out, member))
    members = cluster.members
    for member in members:
        member.node.ns.run(["conntrack", "-F"])
    exchange_all(cluster, podwire_bin / "podwire")
    for member in members:
        lines = tracked(member)
        assert lines, "what pods send is tracked"
        assert [line for line in lines if "dport=8472 " in line] == []


def test_other_overlays_are_tracked(cluster: Cluster, podwire_bin: Path) -> None:
    """A pod may send to the same port elsewhere, and is masqueraded."""
    member = cluster.join()
    cluster.settle()
    pod = member.attach(podwire_bin / "podwire")
    outside = member.node.underlay.ns
    pod.exchange(outside.echo("tcp", member.node.underlay.gateway(4)))
    eventually(partial(leaves_out, member))
    server = outside.echo("udp", member.node.underlay.gateway(4), 8472)
    assert pod.exchange(server) == member.node.address(4)
