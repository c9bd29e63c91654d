"""Many nodes at once: a cluster that starts in one moment, and one that changes all the time."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.netns.routing.traffic import Stream, address, reach

DAEMONS = 12
PEERS = 198
ROUNDS, MOVED = 5, 80


def is_ready(member: Member) -> object:
    """True once pods may start on the node."""
    return member.conflist.exists() or member.log


def test_a_cluster_that_starts_in_one_moment(cluster: Cluster, podwire_bin: Path) -> None:
    members = [cluster.prepare() for _ in range(DAEMONS)]
    cluster.write()
    for member in members:
        member.start()
    for member in members:
        eventually(partial(is_ready, member), 60)
    # The CNI configuration is there: so is every node's way, and pods may start.
    pods = [member.attach(podwire_bin / "podwire") for member in members]
    cluster.settle()
    addresses = [[address(pod, version) for version in (4, 6)] for pod in pods]

    def reached(number: int) -> list[str]:
        """What one pod reaches of all others."""
        others = [a for n, found in enumerate(addresses) if n != number for a in found]
        return [a for a in others if not pods[number].ping(a)]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(reached, range(DAEMONS))) == [[]] * DAEMONS


def listed(number: int) -> dict[str, Any]:
    """A node that exists in the list alone."""
    return {
        "name": f"peer-{number}",
        "addresses": [f"198.18.0.{number}", f"2001:db8:18::{number:x}"],
        "podCIDRs": [f"10.128.{number}.0/24", f"fd00:10:128:{number:x}::/64"],
    }


def write(cluster: Cluster, numbers: set[int]) -> None:
    """The list of the members and of these peers."""
    nodes = [
        {"name": m.name, "addresses": m.addresses, "podCIDRs": m.cidrs} for m in cluster.members
    ]
    nodes += [listed(number) for number in sorted(numbers)]
    fresh = cluster.file.with_suffix(".new")
    fresh.write_text(json.dumps({"nodes": nodes}, indent=1))
    fresh.rename(cluster.file)


def has_all(member: Member, numbers: set[int]) -> object:
    """True where all that leads to these peers and the other member is in the kernel."""
    status = member.status()
    # For each of them two routes, two neighbours, one FDB entry.
    wanted = 5 * (len(numbers) + 1)
    found = status["wanted"], status["entriesInSync"], status["inSync"]
    return found == (wanted, wanted, True) or (found, member.log)


def test_two_hundred_nodes_come_and_go_under_traffic(cluster: Cluster, podwire_bin: Path) -> None:
    pair = cluster.join(), cluster.join()
    cluster.settle()
    pods = [m.attach(podwire_bin / "podwire") for m in pair]
    assert reach(*pods)
    streams = [Stream(pods[0], pods[1], version) for version in (4, 6)]
    random, present = Random(4), set(range(1, PEERS + 1))
    for number in range(ROUNDS + 1):
        present ^= set(random.sample(range(1, PEERS + 1), MOVED)) if number else set()
        write(cluster, present)
        for member, other in (pair, pair[::-1]):
            prefixes = [p for n in present for p in listed(n)["podCIDRs"]]
            eventually(partial(member.has_routes, {*prefixes, *other.cidrs}))
            eventually(partial(has_all, member, present))
    assert [stream.lost() for stream in streams] == [0, 0]
    for member in pair:
        told = [r for r in member.history("node peer-") if r["action"] in ("added", "removed")]
        assert len(told) == PEERS + ROUNDS * MOVED
        assert {r["cause"] for r in told} == {"the plan"}
