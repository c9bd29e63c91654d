"""Nodes lose each other for a while, and find each other with nobody doing anything."""

from functools import partial
from pathlib import Path

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.netns.routing.traffic import address
from tests.pytest_netns import Namespace

Pair = tuple[Member, Member]

# What happens to the second node's uplink, and how it ends; on the node, or beyond its wire.
CUTS = {
    "port out of the switch": ("link set port2 nomaster", "link set port2 master underlay"),
    "no carrier": ("link set port2 down", "link set port2 up"),
    "uplink down": ("link set eth0 down", "link set eth0 up"),
}


def do(member: Member, command: str) -> None:
    where = member.node.underlay.ns if "port2" in command else member.node.ns
    where.ip_batch(f"{command}\n")
    if command == "link set eth0 up":
        # The kernel dropped these with the link; whoever manages the network brings them back.
        router = member.node.underlay.gateway(4)
        where.ip_batch(
            f"route replace default via {router}\naddress replace {member.addresses[1]}/64 dev eth0"
            " nodad\n"
        )


def are_together(pods: list[Namespace], version: int) -> object:
    there, back = (one.ping(address(two, version)) for one, two in (pods, pods[::-1]))
    return (there and back) or (there, back)


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
def test_partition_and_heal(cluster: Cluster, podwire_bin: Path, backend: str) -> None:
    pair = cluster.join(backend=backend), cluster.join(backend=backend)
    cluster.settle()
    one, two = pair
    pods = [m.attach(podwire_bin / "podwire") for m in pair]
    for version in (4, 6):
        eventually(partial(are_together, pods, version))
    for cut, heal in CUTS.values():
        lengths = [len(m.history()) for m in pair]
        do(two, cut)
        assert not pods[0].ping(address(pods[1]), seconds=2)
        # Whoever only cannot be reached stays in the list, and so in the kernel.
        assert one.routes() == set(two.cidrs)
        assert one.status()["inSync"]
        do(two, heal)
        for version in (4, 6):
            eventually(partial(are_together, pods, version))
        for member in pair:
            eventually(member.is_in_sync)
        told = [m.history()[length:] for m, length in zip(pair, lengths, strict=True)]
        # Probes may or may not notice in that time.
        told = [[r for r in each if not r["object"].startswith("peer ")] for each in told]
        assert told[0] == []
        # At most what the kernel dropped with the node's own link.
        assert len(told[1]) <= (6 if "eth0" in cut else 0), told[1]
