"""Faults between two nodes are diagnosed by real packets, and end when they are repaired."""

from __future__ import annotations

import re
import signal
from functools import partial
from pathlib import Path

import pytest

from daemon.status import read_status
from tests.netns.health.conftest import (
    PORT,
    Grow,
    allow_again,
    expect,
    expect_well,
    is_well,
    nft,
    trouble,
    uplink,
)
from tests.netns.routing.conftest import STATUS, Member, eventually

VXLAN = 8472
BACKENDS = ["vxlan", "host-gw", "hybrid", "none"]


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_an_overlay_that_is_blocked(grow: Grow, outer: str) -> None:
    one, two = grow(underlay=outer)
    nft(two, f"input udp dport {VXLAN} drop", f"output udp dport {VXLAN} drop")
    address = two.addresses[outer == "ipv6"]
    expect(one, two, "overlay-blocked", f"answers at {address}", f"UDP port {VXLAN}")
    expect(two, one, "overlay-blocked", f"UDP port {VXLAN}")
    done = one.node.run(
        [one.podwirectl, "status", "--config", one.folder / "podwired.yaml"], check=False
    )
    assert done.returncode == 1
    assert "node        node-1 does NOT reach 1 of 1 peers\n" in done.stdout
    assert "!           node-2 is not reached (overlay-blocked): its node" in done.stdout
    assert "1: 1 failed" in done.stdout
    # What it keeps itself is as planned, and pods may start.
    assert one.status()["inSync"]
    assert one.conflist.exists()
    allow_again(two)
    expect_well([one, two])
    eventually(lambda: "ended peer node-2" in one.log or one.log)
    eventually(lambda: one.status()["troubles"] == [] or one.status()["troubles"])


@pytest.mark.parametrize("family", ["ip", "ip6"])
@pytest.mark.parametrize("backend", ["host-gw", "hybrid"])
def test_one_family_of_pods_is_blocked_on_the_way(grow: Grow, backend: str, family: str) -> None:
    one, two = grow(backend=backend)
    prefix, first = {
        "ip": ("10.244.0.0/16", "10.244.2.0"),
        "ip6": ("fd00:10:244::/48", "fd00:10:244:2::"),
    }[family]
    nft(two, f"input {family} saddr {prefix} drop", f"output {family} saddr {prefix} drop")
    expect(one, two, "overlay-blocked", "packets with pods' addresses", first)
    allow_again(two)
    expect_well([one, two])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_node_without_network(grow: Grow, backend: str) -> None:
    one, two = grow(backend=backend)
    two.node.underlay.ns.run(["ip", "link", "set", uplink(two), "down"])
    expect(one, two, "underlay-down", two.addresses[0])
    two.node.underlay.ns.run(["ip", "link", "set", uplink(two), "up"])
    expect_well([one, two])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_daemon_that_is_gone(grow: Grow, backend: str) -> None:
    one, two = grow(backend=backend)
    two.stop(signal.SIGKILL)
    words = ["start podwired", str(PORT)]
    words += ["its pods can be reached"] if backend != "none" else []
    expect(one, two, "daemon-gone", *words)
    two.start()
    expect_well([one, two])


@pytest.mark.parametrize(
    ("backend", "outer"), [("vxlan", "ipv4"), ("vxlan", "ipv6"), ("host-gw", "ipv4")]
)
def test_a_path_for_smaller_packets(grow: Grow, backend: str, outer: str) -> None:
    one, two = grow(backend=backend, underlay=outer)
    narrow = 1400
    # Dropped where it comes in: on its way out of a bridge an IPv4 packet may be fragmented.
    for member in (one, two):
        member.node.underlay.ns.run(["ip", "link", "set", uplink(member), "mtu", str(narrow)])
    expect(one, two, "mtu", "arrive at 10.244.2.0", "set `mtu: ")
    overhead = 0 if backend == "host-gw" else {"ipv4": 50, "ipv6": 70}[outer]
    found = re.match(r"packets of (\d+) bytes arrive", trouble(one, two.name)["detail"])
    assert found is not None
    # A link lets the length of a VLAN tag more through (is_skb_forwardable).
    assert narrow - overhead - 8 <= int(found[1]) <= narrow - overhead + 4
    expect(two, one, "mtu", "arrive at 10.244.1.0")
    # What the words say to do: all nodes with that MTU.
    for member in (one, two):
        member.stop()
        member.start(mtu=int(found[1]))
    expect_well([one, two])


def test_packets_that_arrive_in_one_direction(grow: Grow) -> None:
    one, two = grow()
    nft(two, f"input udp dport {VXLAN} drop")
    expect(one, two, "one-way", "its packets arrive here", f"UDP port {VXLAN}")
    expect(two, one, "one-way", "this node's own firewall drops VXLAN", "chain input of table")
    allow_again(two)
    expect_well([one, two])


def test_a_firewall_that_rejects(grow: Grow) -> None:
    one, two = grow(backend="none")
    nft(two, f"input udp dport {PORT} reject with icmpx admin-prohibited")
    expect(one, two, "one-way", "a firewall does not let it through", two.addresses[0])


def test_a_firewall_of_the_node_itself(grow: Grow) -> None:
    one, two = grow(backend="none")
    nft(one, f"output udp dport {PORT} drop")
    expect(one, two, "one-way", "this node's own firewall")


def test_only_the_broken_one_of_three(grow: Grow) -> None:
    one, two, three = grow(3)
    three.stop(signal.SIGKILL)
    for member in (one, two):
        expect(member, three, "daemon-gone")
        eventually(partial(is_well, member, 1))
    # A node that is not answered by anybody says so of all, and goes on.
    three.start()
    expect_well([one, two, three])


def test_before_it_fails_it_is_retrying(grow: Grow) -> None:
    one, two = grow(health={"interval": 5, "budget": 50})
    two.node.underlay.ns.run(["ip", "link", "set", uplink(two), "down"])
    eventually(partial(is_retrying, one))
    done = one.node.run([one.podwirectl, "status", "--file", STATUS], check=False)
    assert done.returncode == 1
    assert "node        node-1 does NOT reach 1 of 1 peers\n" in done.stdout
    expect(one, two, "underlay-down")
    two.node.underlay.ns.run(["ip", "link", "set", uplink(two), "up"])
    expect_well([one, two])
    eventually(partial(are_journaled, one, ["failed", "ended"]))
    eventually(lambda: one.status()["ok"] or one.status())


def is_retrying(member: Member) -> object:
    """True where its status says so. It is read without a program: the state lasts seconds."""
    assert member.process is not None
    health = read_status(Path(f"/proc/{member.process.pid}/root{STATUS}")).status.health
    text = "node-2 does not answer as it should (underlay-down, retrying): "
    return (health and any(line.startswith(text) for line in health.lines)) or (health, member.log)


def are_journaled(member: Member, actions: list[str]) -> object:
    """True where the journal has these records of peers."""
    found = member.history("peer node-2")
    return [record["action"] for record in found] == actions or (found, member.log)
