"""The other nodes as `podwirectl peers` shows them, with the daemon running and dead."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.netns.routing.conftest import Cluster, Member, eventually

pytestmark = pytest.mark.xdist_group("podwirectl peers")


def peers(member: Member, *words: str, status: int = 0) -> Any:
    """What the command prints as JSON."""
    return json.loads(run(member, *words, "-o", "json", status=status)[0] or "null")


def run(member: Member, *words: str, status: int = 0) -> tuple[str, str]:
    """What the command prints, on stdout and on stderr."""
    argv: list[str | Path] = [member.podwirectl, "peers", *words]
    argv += ["--config", member.folder / "podwired.yaml"]
    done = member.node.run(argv, check=False)
    assert done.returncode == status, done
    return done.stdout, done.stderr


def state(member: Member, wanted: str) -> object:
    """True where the one peer is in that state, else what there is."""
    argv: list[str | Path] = [member.podwirectl, "peers", "-o", "json"]
    argv += ["--config", member.folder / "podwired.yaml"]
    (peer,) = json.loads(member.node.run(argv, check=False).stdout)
    return peer["state"] == wanted or peer


def test_a_peer_that_is_reached(cluster: Cluster) -> None:
    one, two = cluster.members
    eventually(lambda: state(one, "established"))
    (peer,) = peers(one)
    assert (peer["name"], peer["path"]) == ("node-2", "vxlan")
    assert peer["addresses"] == two.addresses
    assert peer["podCIDRs"] == two.cidrs
    assert peer["vtep"] == {"address": two.addresses[0], "mac": device_mac(two)}
    assert {route["prefix"] for route in peer["routes"]} == set(two.cidrs)
    assert 0 < peer["rtt"] < 1
    assert peer["probes"] > peer["lost"]
    table, _ = run(one)
    assert f"vxlan {two.addresses[0]}" in table
    assert run(one, "node-2")[0].startswith("peer        node-2\n")
    assert "node-3" in run(one, "node-3", status=1)[1]


def device_mac(member: Member) -> str:
    link = member.node.ns.link("podwire-vxlan")
    assert link is not None
    return str(link["address"])


def test_a_prefix_that_is_refused(cluster: Cluster) -> None:
    one, two = cluster.members
    cluster.write(node_2={"podCIDRs": [*two.cidrs, one.cidrs[0]]})
    try:
        (peer,) = peers(one, status=1)
    finally:
        cluster.write()
    assert [refused["prefix"] for refused in peer["refused"]] == [one.cidrs[0]]
    assert {route["prefix"] for route in peer["routes"]} == set(two.cidrs)


def test_a_peer_that_has_failed_and_no_daemon(cluster: Cluster) -> None:
    one, two = cluster.members
    two.stop()
    eventually(lambda: state(one, "failed"))
    eventually(lambda: peers(one, status=1)[0]["reason"] == "daemon-gone" or peers(one, status=1))
    (peer,) = peers(one, status=1)
    assert peer["lost"] < peer["probes"]
    assert "daemon-gone" in run(one, "node-2", status=1)[0]
    # Paths and prefixes are known without any daemon; how the peer was is not.
    (of_two,) = peers(two)
    assert (of_two["name"], of_two["state"], of_two["path"]) == ("node-1", None, "vxlan")
    two.start()
    eventually(lambda: state(one, "established"))
    # Of a daemon that was killed the states are the last ones, with their age.
    one.stop(signal.SIGKILL)
    table, err = run(one)
    assert "established" in table
    assert re.search(r"no daemon probes: the states are of \d+s ago", err)
    one.start()


def test_a_list_of_nodes_that_is_broken(cluster: Cluster) -> None:
    one = cluster.members[0]
    cluster.file.write_text("nodes: [")
    try:
        _, err = run(one, status=1)
    finally:
        cluster.write()
    assert "nodes.yaml:" in err
