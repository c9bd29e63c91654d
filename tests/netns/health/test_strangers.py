"""What strangers send judges no peer, is not answered, and costs little."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.netns.health.conftest import (
    FAST,
    PORT,
    Grow,
    expect,
    expect_well,
    health,
    is_well,
    trouble,
)
from tests.netns.routing.conftest import Cluster, Member, eventually
from tests.pytest_netns import Namespace

ANSWER = 20


def packet(size: int, *, kind: int = 1, claims: int = 0, version: int = 4) -> bytes:
    """A probe (or an answer, kind 2) of an IP packet of that size, as it is on the wire."""
    payload = size - (28 if version == 4 else 48)
    head = struct.pack("!3sBBBHQI", b"pwh", 1, kind, 0xFF, claims or size, 0x1234, 0)
    return head.ljust(payload, b"\0")


def sender(ns: Namespace, address: str, port: int = PORT) -> socket.socket:
    """A socket of the namespace with that address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = ns.socket(family, socket.SOCK_DGRAM)
    made.bind((address, port))
    made.settimeout(2)
    return made


def answers(stranger: socket.socket, to: str, *payloads: bytes, wanted: int = 0) -> list[int]:
    """The lengths of the answers to some datagrams; the node's own probes left out.

    Those that are wanted have a minute, any beyond them the sender's time.
    """
    for payload in payloads:
        stranger.sendto(payload, (to, PORT))
    found: list[int] = []
    quiet = stranger.gettimeout()
    try:
        while True:
            stranger.settimeout(60 if len(found) < wanted else quiet)
            came = stranger.recv(70000)
            if came[4] == 2:
                found.append(len(came))
    except TimeoutError:
        return found


def lonely(cluster: Cluster) -> tuple[Member, Member]:
    """A node with a daemon, and one without: the test speaks in its place."""
    one, two = cluster.join(health=FAST, backend="host-gw"), cluster.join(start=False)
    expect(one, two, "daemon-gone")
    return one, two


def test_an_answer_is_never_longer_than_its_probe(cluster: Cluster) -> None:
    one, two = lonely(cluster)
    for version in (4, 6):
        smallest = ANSWER + (28 if version == 4 else 48)
        with closing(sender(two.node.ns, two.addresses[version == 6])) as known:
            probes = [packet(s, version=version) for s in (smallest, 576, 1400)]
            sent = answers(known, one.addresses[version == 6], *probes, wanted=3)
            assert sent == [ANSWER] * len(probes)


def test_strangers_are_not_answered(cluster: Cluster) -> None:
    one, two = lonely(cluster)
    world = one.node.underlay.ns
    with closing(sender(world, one.node.underlay.gateway(4))) as stranger:
        assert answers(stranger, one.addresses[0], packet(48), packet(1400)) == []
    with closing(sender(two.node.ns, two.addresses[0], PORT + 1)) as other_port:
        assert answers(other_port, one.addresses[0], packet(48)) == []


NO_PROBES = (
    b"",
    b"x",
    b"pwh",
    bytes(range(256)),
    packet(48)[:-1],
    packet(48) + b"\0",
    packet(48, claims=1450),
    packet(1400, claims=44),
    packet(48, claims=5),
    packet(60000, claims=44),  # in fragments
    packet(48, kind=7),
    b"pwh\x02" + packet(48)[4:],
)


def test_what_is_no_probe_is_dropped(cluster: Cluster) -> None:
    one, two = lonely(cluster)
    with closing(sender(two.node.ns, two.addresses[0])) as known:
        assert answers(known, one.addresses[0], *NO_PROBES) == []
        # It goes on. Fragments of what has its size are the kernel's business.
        assert answers(known, one.addresses[0], packet(48), packet(65000), wanted=2) == [ANSWER] * 2


def test_forged_answers_establish_nothing(cluster: Cluster) -> None:
    one, two = lonely(cluster)
    with closing(sender(two.node.ns, two.addresses[0])) as forger:
        for _ in range(200):
            forger.sendto(packet(48, kind=2), (one.addresses[0], PORT))
            time.sleep(0.01)
    assert health(one)["established"] == 0


def test_a_flood_costs_little_and_is_over_when_it_ends(grow: Grow) -> None:
    one, two = grow()
    before, began = processor_seconds(one), time.monotonic()
    world = one.node.underlay.ns
    with closing(sender(world, one.node.underlay.gateway(4))) as stranger:
        stranger.settimeout(None)
        sent, payload = 0, packet(48)
        while time.monotonic() - began < 3:
            stranger.sendto(payload, (one.addresses[0], PORT))
            sent += 1
    used = (processor_seconds(one) - before) / (time.monotonic() - began)
    print(f"{sent} datagrams in 3 s: {used:.1%} of a core")
    assert sent > 10_000
    assert used < 0.5  # each of them read would take all of it
    expect_well([one, two])
    eventually(lambda: one.status()["dropped"]["probes"] > 10_000 or one.status())
    conf = one.folder / "podwired.yaml"
    done = one.node.run([one.podwirectl, "status", "--config", conf], check=False)
    assert "peers       1: 1 established" in done.stdout
    assert " probes that no peer sent" in done.stdout


GARBAGE = b"x" * 100
UNKNOWN = "10.244.0.0"
"""An address of no peer."""


def flood(stranger: socket.socket, to: str, payload: bytes, rate: int, seconds: float) -> int:
    """Send at about that rate, which may be more than can be sent; how many went."""
    began, sent = time.monotonic(), 0
    while (gone := time.monotonic() - began) < seconds:
        if sent < gone * rate:
            stranger.sendto(payload, (to, PORT))
            sent += 1
        else:
            time.sleep(0.005)
    return sent


@pytest.mark.parametrize(
    ("what", "rate"),
    [("garbage", 300), ("garbage", 2000), ("pod", 2000), ("unknown", 300), ("large", 2000)],
)
def test_peers_stay_established_during_a_flood(
    grow: Grow, podwire_bin: Path, what: str, rate: int
) -> None:
    one, two = grow()
    if what in ("garbage", "pod"):
        pod = two.attach(podwire_bin / "podwire")
        made = sender(pod, "0.0.0.0", PORT if what == "pod" else 0)  # noqa: S104 - in a pod
    else:
        two.node.ns.run(["ip", "address", "add", f"{UNKNOWN}/32", "dev", "lo"])
        made = sender(two.node.ns, UNKNOWN)
    payload = {"garbage": GARBAGE, "large": packet(1450)}.get(what, packet(48))
    with closing(made) as stranger:
        assert flood(stranger, "10.244.1.0", payload, rate, 8) > 7 * rate
        for member, peer in ((one, two), (two, one)):
            assert health(member)["established"] == 1, member.log
            assert trouble(member, peer.name) == {}
            assert "failed peer" not in member.log
            # Faster ones may fill the queue of a daemon that a busy machine keeps waiting.
            assert rate > 300 or "flooded" not in member.log


def test_a_flood_of_a_stranger_does_not_reach_the_daemon(grow: Grow) -> None:
    one, two = grow()
    two.node.ns.run(["ip", "address", "add", f"{UNKNOWN}/32", "dev", "lo"])
    with closing(sender(two.node.ns, UNKNOWN)) as stranger:
        stranger.settimeout(None)
        flood(stranger, "10.244.1.0", packet(48), 10**9, 5)
        assert one.status()["troubles"] == []
    eventually(lambda: one.status()["dropped"]["probes"] > 10_000 or one.status())
    assert health(one)["dropped"] == 0
    for member in (one, two):
        assert "failed peer" not in member.log


def processor_seconds(member: Member) -> float:
    assert member.process is not None
    fields = Path(f"/proc/{member.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_two_nodes_that_claim_one_prefix(cluster: Cluster, grow: Grow) -> None:
    one, _two = grow()
    cluster.join(start=False)
    cluster.write(node_3={"podCIDRs": ["10.244.2.0/24"]})
    eventually(lambda: bool(one.status()["refused"]) or one.log)
    # Whoever has it is probed there; the other by its own addresses.
    eventually(lambda: health(one)["established"] >= 1)
    third = cluster.members[2]
    expect(one, third, "daemon-gone", third.addresses[0])
    eventually(partial(is_well, one, 1))


def is_limited(member: Member) -> object:
    found = member.status()["troubles"]
    return any("more than 500 probes" in text for text in found) or (found, member.log)


def test_a_flood_in_the_name_of_a_peer_is_limited_and_reported(grow: Grow) -> None:
    one, two = grow()
    with closing(sender(two.node.ns, two.addresses[0], PORT + 1)) as forger:
        forger.settimeout(None)
        flood(forger, one.addresses[0], GARBAGE, 10**9, 3)
    eventually(partial(is_limited, one))
    assert one.status()["dropped"]["limited"] > 0
    eventually(lambda: one.status()["troubles"] == [] or one.status()["troubles"])
    expect_well([one, two])
