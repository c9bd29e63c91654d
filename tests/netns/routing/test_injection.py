"""Hostile pods and strangers encapsulate frames themselves: no node takes them for a peer's.

What a node forwards and masquerades has its address, which is a peer's.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from kernel.frames import checksum
from tests.netns.robustness.frames import PORT, UDP, ethernet, udp
from tests.netns.routing.conftest import DEVICE, Cluster, Member
from tests.netns.routing.traffic import address
from tests.pytest_netns import Namespace
from tests.pytest_netns.underlay import SUBNETS, Family

FAMILIES: tuple[Family, ...] = (4, 6)
FORGED = "10.244.1.99"
VXLAN_PORT = 8472


def encapsulated(member: Member, to: Namespace) -> bytes:
    """A datagram to a pod of that node as from another address of the cluster, in VXLAN."""
    link = member.node.ns.link(DEVICE)
    assert link is not None
    frame = ethernet(str(link["address"]), "02:00:00:00:00:01", *udp(FORGED, address(to)))
    return struct.pack("!II", 8 << 24, 1 << 8) + frame


def send(sender: Namespace, to: str, payload: bytes, port: int = VXLAN_PORT) -> None:
    family = socket.AF_INET6 if ":" in to else socket.AF_INET
    with closing(sender.socket(family, socket.SOCK_DGRAM)) as made:
        for _ in range(3):
            made.sendto(payload, (to, port))


@contextmanager
def nothing_forged(victim: Namespace, honest: Namespace) -> Iterator[None]:
    """What the victim received when an honest pod's datagram arrives."""
    with victim.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((address(victim), PORT))
        listener.settimeout(30)
        yield
        seen: list[str] = []
        with closing(honest.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
            while address(honest) not in seen:
                made.sendto(b"x", (address(victim), PORT))
                seen.append(str(listener.recvfrom(64)[1][0]))
    assert FORGED not in seen


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_injects_nothing(cluster: Cluster, podwire_bin: Path, family: Family) -> None:
    """Neither at a node's address nor at one that the source does not list."""
    one, two = (cluster.join(underlay=f"ipv{family}") for _ in range(2))
    cluster.settle()
    other = SUBNETS[family][200]
    two.node.ns.ip_batch(f"address add {other}/{SUBNETS[family].prefixlen} dev eth0\n")
    attacker, victim = one.attach(podwire_bin / "podwire"), two.attach(podwire_bin / "podwire")
    payload = encapsulated(two, victim)
    with nothing_forged(victim, attacker):
        for target in (two.node.address(family), str(other)):
            send(attacker, target, payload)


LEADS_TO_A_PEER = """
table inet service {{
  chain prerouting {{
    type nat hook prerouting priority dstnat
    udp dport 30000 dnat {to}:{port}
  }}
  chain postrouting {{ type nat hook postrouting priority srcnat; ct status dnat masquerade; }}
}}
"""


@pytest.mark.parametrize("family", FAMILIES)
def test_no_node_leads_strangers_to_a_peer(
    cluster: Cluster, podwire_bin: Path, family: Family
) -> None:
    one, two = (cluster.join(underlay=f"ipv{family}") for _ in range(2))
    cluster.settle()
    honest, victim = one.attach(podwire_bin / "podwire"), two.attach(podwire_bin / "podwire")
    to = f"ip to {two.node.address(4)}" if family == 4 else f"ip6 to [{two.node.address(6)}]"
    one.node.run(["nft", "-f", "-"], stdin=LEADS_TO_A_PEER.format(to=to, port=VXLAN_PORT))
    with nothing_forged(victim, honest):
        stranger = one.node.underlay.ns
        send(stranger, one.node.address(family), encapsulated(two, victim), 30000)


def too_big(family: Family, source: str, to: str, port: int) -> bytes:
    """An ICMP error that claims an MTU for a datagram between two nodes."""
    vxlan = struct.pack("!II", 8 << 24, 1 << 8)
    datagram = struct.pack("!HHHH", port, port, 1400, 0) + vxlan
    ends = ip_address(source).packed + ip_address(to).packed
    if family == 6:  # the kernel fills the checksum in
        quoted = struct.pack("!IHBB", 6 << 28, 1400, UDP, 64) + ends + datagram
        return struct.pack("!BBHI", 2, 0, 0, 1280) + quoted
    quoted = struct.pack("!BBHHHBBH", 0x45, 0, 1420, 1, 0, 64, UDP, 0) + ends + datagram
    error = struct.pack("!BBHHH", 3, 4, 0, 0, 600) + quoted
    return error[:2] + struct.pack("!H", checksum(error)) + error[4:]


@pytest.mark.parametrize("port", [VXLAN_PORT, 8473])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_pod_claims_an_mtu_between_nodes(
    cluster: Cluster, podwire_bin: Path, family: Family, port: int
) -> None:
    """Neither to its own node nor to another one: they would send fragments for ten minutes."""
    one, two, three = (cluster.join(underlay=f"ipv{family}") for _ in range(3))
    cluster.settle()
    attacker = one.attach(podwire_bin / "podwire")
    kind, protocol = (
        (socket.AF_INET, socket.IPPROTO_ICMP)
        if family == 4
        else (socket.AF_INET6, socket.IPPROTO_ICMPV6)
    )
    raw = attacker.call(lambda: socket.socket(kind, socket.SOCK_RAW, protocol))
    with closing(raw):
        for node in (one, three):
            ends = node.node.address(family), two.node.address(family)
            raw.sendto(too_big(family, *ends, port), (ends[0], 0))
            assert attacker.ping(ends[0])  # what was sent before has arrived
            assert " mtu " not in node.node.run(["ip", "route", "get", ends[1]]).stdout
