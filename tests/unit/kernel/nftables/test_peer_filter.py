"""The filter of peers: whose packets arrive, real ones on a loopback; whole again, and gone."""

import socket
import subprocess
from contextlib import closing, suppress
from ipaddress import ip_address

import pytest

from kernel.model import Element
from kernel.netlink.socket import Netlink
from kernel.nftables import ruleset
from kernel.nftables.peer_filter import (
    PROBES_MAX,
    Dropped,
    admit_peers,
    count_dropped,
    ensure_peer_filter,
    filters_peers,
    node_elements,
    peer_elements,
    remove_peer_filter,
)
from kernel.nftables.table import load

VXLAN, PROBES, OTHER = 8472, 8473, 8474
NODE = "127.0.0.1"
PEER, POD_PEER, STRANGER = "127.0.0.2", "127.0.0.3", "127.0.0.9"


def nft(command: str) -> str:
    done = subprocess.run(["nft", *command.split()], check=True, capture_output=True, text=True)
    return done.stdout


def elements(vxlan: int | None = VXLAN, probes: int | None = PROBES) -> frozenset[Element]:
    peers = peer_elements([ip_address(PEER)], [ip_address(POD_PEER)])
    return peers | node_elements("eth0", "podwire-vxlan", [ip_address(NODE)], vxlan, probes)


@pytest.fixture(autouse=True)
def loopback(nl: Netlink) -> None:
    del nl  # it is in the namespace
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def arrives(source: str, port: int, count: int = 1, to: str = NODE) -> int:
    """How many datagrams of so many arrive, sent from an address at once."""
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as here,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as there,
    ):
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        here.bind((to, port))
        here.setblocking(False)
        there.bind((source, 0))
        for _ in range(count):
            there.sendto(b"x", (to, port))
        found = 0
        with suppress(BlockingIOError):
            while here.recv(9):
                found += 1
        return found


def test_only_peers_arrive_and_the_rest_is_counted() -> None:
    ensure_peer_filter(elements())
    found = {
        (source, port): arrives(source, port)
        for source in (PEER, POD_PEER, STRANGER)
        for port in (VXLAN, PROBES, OTHER)
    }
    assert [key for key, count in found.items() if not count] == [
        (POD_PEER, VXLAN), (STRANGER, VXLAN), (STRANGER, PROBES),
    ]  # fmt: skip
    assert count_dropped() == Dropped(vxlan=2, probes=1)


def test_a_node_is_reached_at_its_address_alone() -> None:
    """At another one a peer's address may be the masqueraded one of its pod."""
    ensure_peer_filter(elements())
    assert [arrives(PEER, port, to="127.0.0.4") for port in (VXLAN, PROBES, OTHER)] == [0, 0, 1]
    assert count_dropped() == Dropped(vxlan=1, probes=1)


def test_a_port_without_an_element_is_not_filtered() -> None:
    assert not filters_peers()
    assert count_dropped() == Dropped()
    ensure_peer_filter(elements(vxlan=None))
    assert (arrives(STRANGER, VXLAN), arrives(STRANGER, PROBES)) == (1, 0)
    assert filters_peers()


def test_probes_of_one_address_are_limited_and_of_others_are_not() -> None:
    ensure_peer_filter(elements())
    sent = 2 * PROBES_MAX
    found = arrives(PEER, PROBES, sent)
    assert PROBES_MAX <= found < sent
    assert count_dropped() == Dropped(limited=sent - found)
    assert arrives(POD_PEER, PROBES, 100) == 100


def test_a_peer_is_admitted_and_dropped() -> None:
    ensure_peer_filter(elements())
    admit_peers(peer_elements([ip_address(STRANGER)], ()))
    assert arrives(STRANGER, VXLAN) == 1
    assert ensure_peer_filter(elements()) != ()
    assert arrives(STRANGER, VXLAN) == 0
    assert ensure_peer_filter(elements()) == ()


@pytest.mark.parametrize(
    "damage",
    [
        "flush chain inet podwire peers",
        "delete chain inet podwire peers",
        "flush set inet podwire peers4",
        "add element inet podwire peers4 { 10.0.0.1 }",
        "delete table inet podwire",
    ],
)
def test_it_is_whole_again_after_damage(damage: str) -> None:
    ensure_peer_filter(elements())
    before = sorted(nft("list table inet podwire").split("\n"))
    nft(damage)
    assert ensure_peer_filter(elements()) != ()
    assert sorted(nft("list table inet podwire").split("\n")) == before


def test_it_goes_without_a_trace() -> None:
    load(ruleset.NODE)
    before = nft("list ruleset")
    assert remove_peer_filter() is False
    ensure_peer_filter(elements())
    nft("delete chain inet podwire peers")
    assert remove_peer_filter() is True
    assert nft("list ruleset") == before
