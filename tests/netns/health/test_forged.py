"""VXLAN and probes count from peers alone, whatever pods and strangers send."""

from __future__ import annotations

import json
import signal
import socket
import struct
from contextlib import closing
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.netns.health.conftest import FAST, PORT, Grow, expect_well, health, is_well, trouble
from tests.netns.routing.conftest import DEVICE, Cluster, Member, eventually
from tests.netns.routing.traffic import Stream, address, reach
from tests.pytest_netns import Namespace

VXLAN = 8472
SECRET = 9999
"""The port of a service on the node that forged packets are for."""


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ipv4(source: str, to: str, payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram."""
    ends = ip_address(source).packed + ip_address(to).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, 17, 0) + ends
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def udp(port: int, payload: bytes, sport: int = 40000) -> bytes:
    """A UDP datagram without a checksum."""
    return struct.pack("!HHHH", sport, port, 8 + len(payload), 0) + payload


def encapsulated(member: Member, source: str) -> bytes:
    """A VXLAN packet with a datagram for the node's service, from any source address."""
    [link] = member.node.ip(f"link show dev {DEVICE}")
    frame = bytes.fromhex(link["address"].replace(":", "")) + b"\x02forge" + b"\x08\x00"
    [device] = member.node.ip(f"-d link show dev {DEVICE}")
    vni = device["linkinfo"]["info_data"]["id"]
    inner = ipv4(source, f"10.244.{member.number}.0", udp(SECRET, b"forged"))
    return struct.pack("!II", 0x08 << 24, vni << 8) + frame + inner


def service(member: Member) -> socket.socket:
    made = member.node.ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", SECRET))  # noqa: S104 - in a namespace
    made.settimeout(20)
    return made


def send(ns: Namespace, to: str, payload: bytes, port: int = VXLAN, count: int = 10) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with closing(ns.socket(family, socket.SOCK_DGRAM)) as made:
        for _ in range(count):
            made.sendto(payload, (to, port))


def send_raw(ns: Namespace, source: str, to: str, payload: bytes, port: int = VXLAN) -> None:
    """Send with a forged source address."""
    raw = partial(socket.socket, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with closing(ns.call(raw)) as made:
        for _ in range(10):
            made.sendto(ipv4(source, to, udp(port, payload, port)), (to, 0))


def is_dropped(member: Member, reason: str, least: int) -> object:
    return member.status().get("dropped", {}).get(reason, 0) >= least or (
        member.status(),
        member.log,
    )


def drain(made: socket.socket) -> list[bytes]:
    made.setblocking(False)
    found = []
    try:
        while True:
            found.append(made.recv(99))
    except BlockingIOError:
        return found


@pytest.mark.parametrize("outer", ["ipv4", "ipv6"])
def test_vxlan_of_others_is_dropped_and_counted(grow: Grow, podwire_bin: Path, outer: str) -> None:
    one, two = grow(underlay=outer)
    eventually(lambda: one.is_in_sync() is True and two.is_in_sync() is True)
    pod, far = (m.attach(podwire_bin / "podwire") for m in (one, two))
    target = one.addresses[outer == "ipv6"]
    packet = encapsulated(one, "10.244.2.77")
    with closing(service(one)) as secret:
        send(two.node.ns, target, packet, count=1)
        assert secret.recv(99) == b"forged"  # it is a valid one, and a peer may send it
        world = one.node.underlay.ns
        send(world, target, packet)
        send(pod, target, packet)  # an ordinary socket
        send(pod, "10.244.1.1", packet)
        send(far, target, packet)
        if outer == "ipv4":
            send_raw(pod, two.addresses[0], target, packet)  # the source check's business
            send_raw(world, "192.0.2.66", target, packet)
        eventually(partial(is_dropped, one, "vxlan", 40 if outer == "ipv4" else 30))
        eventually(partial(is_dropped, two, "pods", 10))
        assert drain(secret) == []
    assert reach(pod, far)
    done = one.node.run([one.podwirectl, "status", "--config", one.folder / "podwired.yaml"])
    assert "VXLAN packets that no peer sent" in done.stdout


def test_probes_of_others_are_dropped_and_counted(grow: Grow, podwire_bin: Path) -> None:
    one, two = grow()
    eventually(lambda: one.is_in_sync() is True and two.is_in_sync() is True)
    pod, far = (m.attach(podwire_bin / "podwire") for m in (one, two))
    for ns in (pod, far, one.node.underlay.ns):
        for to in (*one.addresses, "10.244.1.0", "10.244.1.1"):
            if ns is not one.node.underlay.ns or not to.startswith("10."):
                send(ns, to, b"x", PORT)
    send_raw(pod, two.addresses[0], one.addresses[0], b"x", PORT)
    send_raw(pod, "10.244.2.0", "10.244.1.0", b"x", PORT)
    eventually(partial(is_dropped, one, "probes", 80))
    eventually(partial(is_dropped, two, "pods", 20))
    assert health(one)["dropped"] == 0
    expect_well([one, two])


def test_an_overlay_of_the_pods_own_passes(grow: Grow, podwire_bin: Path) -> None:
    one, two = grow()
    pod, far = (m.attach(podwire_bin / "podwire") for m in (one, two))
    with closing(far.socket(socket.AF_INET, socket.SOCK_DGRAM)) as inner:
        inner.bind(("0.0.0.0", VXLAN))  # noqa: S104 - in a namespace
        inner.settimeout(20)
        send(pod, address(far), b"theirs", count=1)
        assert inner.recv(99) == b"theirs"


def tables(member: Member) -> str:
    return member.node.run(["nft", "list", "table", "inet", "podwire"]).stdout


def test_nobody_is_cut_off_while_nodes_come_and_go(
    cluster: Cluster, grow: Grow, podwire_bin: Path
) -> None:
    one, two = grow()
    pods = [m.attach(podwire_bin / "podwire") for m in (one, two)]
    streams = [Stream(pods[0], pods[1], version) for version in (4, 6)]
    three = cluster.join(health=FAST)
    expect_well([one, two, three])
    far = three.attach(podwire_bin / "podwire")
    assert reach(pods[0], far)
    one.stop()
    four = cluster.join(health=FAST)  # nobody tells it of four meanwhile
    one.start()
    expect_well([one, two, three, four])
    assert [stream.lost() for stream in streams] == [0, 0]
    assert far.ping(address(pods[0]))


def test_a_peer_that_left_may_send_no_more(cluster: Cluster, grow: Grow) -> None:
    one, two, three = grow(3)
    assert three.addresses[0] in tables(one)
    three.stop()
    cluster.write(node_3=None)
    eventually(lambda: three.addresses[0] not in tables(one) or tables(one))
    assert two.addresses[0] in tables(one)
    expect_well([one, two])


def test_a_peer_moves_to_another_address(cluster: Cluster, grow: Grow) -> None:
    one, two = grow()
    fresh = "192.0.2.200"
    two.node.ns.run(["ip", "address", "add", f"{fresh}/24", "dev", "eth0"])
    cluster.write(node_2={"addresses": [fresh, two.addresses[1]]})
    eventually(lambda: (fresh in tables(one) and two.addresses[0] not in tables(one)) or one.log)
    expect_well([one, two])


DAMAGE = {
    "rules": ["flush", "chain", "inet", "podwire", "peers"],
    "peers": ["flush", "set", "inet", "podwire", "peers4"],
    "all": ["flush", "ruleset"],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_repaired_and_journaled(grow: Grow, what: str) -> None:
    one, _two = grow()
    before = steady(one)
    one.node.run(["nft", *DAMAGE[what]])
    eventually(lambda: steady(one) == before or (steady(one), one.log))
    eventually(partial(is_journaled, one))


def is_journaled(member: Member) -> object:
    found = member.history("filter of peers")
    return [r["action"] for r in found] == ["restored"] or (found, member.log)


def steady(member: Member) -> str:
    """The rules and peers of the filter, without counts."""
    rules = json.loads(member.node.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    found = [r["rule"]["comment"] for r in rules if r.get("rule", {}).get("chain") == "peers"]
    sets = [r["set"] for r in rules if "peers" in r.get("set", {}).get("name", "")]
    return json.dumps([found, sorted((s["name"], sorted(s.get("elem", []))) for s in sets)])


def test_another_port_is_filtered_instead(grow: Grow) -> None:
    one, two = grow(vxlan={"port": 4789}, health={"interval": 1, "budget": 50, "port": 9000})
    assert "4789" in tables(one)
    send(one.node.underlay.ns, one.addresses[0], b"x", 4789)
    send(one.node.underlay.ns, one.addresses[0], b"x", 9000)
    send(one.node.underlay.ns, one.addresses[0], b"x", VXLAN)
    eventually(partial(is_dropped, one, "vxlan", 10))
    eventually(partial(is_dropped, one, "probes", 10))
    assert one.status()["dropped"]["vxlan"] == 10
    expect_well([one, two])


def test_without_an_overlay_its_port_is_anybodys(grow: Grow) -> None:
    one, _two = grow(backend="host-gw")
    with closing(one.node.ns.socket(socket.AF_INET, socket.SOCK_DGRAM)) as theirs:
        theirs.bind(("0.0.0.0", VXLAN))  # noqa: S104 - in a namespace
        theirs.settimeout(20)
        send(one.node.underlay.ns, one.addresses[0], b"x", count=1)
        assert theirs.recv(99) == b"x"


def test_forged_probes_hide_no_dead_node_and_fail_no_healthy_one(grow: Grow) -> None:
    one, two, three = grow(3)
    world, to = one.node.underlay.ns, one.addresses[0]
    probe = struct.pack("!3sBBBHQI", b"pwh", 1, 1, 0xFF, 48, 0x1234, 0)
    answer = struct.pack("!3sBBBHQI", b"pwh", 1, 2, 0xFF, 48, 0x1234, 0)
    three.stop(signal.SIGKILL)
    three.node.ns.run(["ip", "link", "set", "eth0", "down"])

    def is_failed() -> object:
        for member in (two, three):
            for payload in (probe, answer):
                send_raw(world, member.addresses[0], to, payload, PORT)
        return trouble(one, three.name).get("state") == "failed" or one.log

    eventually(is_failed)
    assert one.status()["dropped"]["probes"] == 0
    assert health(one)["dropped"] > 0
    eventually(partial(is_well, one, 1))
    assert f"failed peer {two.name}" not in one.log
