"""What the kernel lets into a socket of probes: a peer's packets, and nothing of strangers."""

from __future__ import annotations

import socket
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.probes.protocol import NotOurs, Packet, Path, parse, render, smallest
from daemon.probes.sieve import attach, foreign_bits

LOCAL = {4: "127.0.0.1", 6: "::1"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PATHS = {4: Path.POD4, 6: Path.POD6}


def sieve(version: int, payload: bytes, *, foreign: tuple[int, ...] = (), port: int = 0) -> bool:
    """Whether a datagram gets through."""
    with (
        closing(socket.socket(FAMILIES[version], socket.SOCK_DGRAM)) as to,
        closing(socket.socket(FAMILIES[version], socket.SOCK_DGRAM)) as sender,
    ):
        sender.bind((LOCAL[version], 0))
        attach(to, PATHS[version], port or sender.getsockname()[1], foreign)
        to.bind((LOCAL[version], 0))
        to.setblocking(False)  # over the loopback it is there when sending returns
        sender.sendto(payload, to.getsockname())
        with suppress(BlockingIOError):
            return to.recv(70000) == payload
        return False


packets = st.builds(
    Packet,
    st.booleans(),
    st.integers(0, 255),
    st.integers(68, 65000),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
)


@given(packets, st.sampled_from([4, 6]), st.integers(0, 24), st.integers(0, 255))
def test_it_lets_through_what_can_be_read(
    packet: Packet, version: int, place: int, byte: int
) -> None:
    payload = bytearray(render(packet, version))
    assert sieve(version, bytes(payload))
    payload[place % len(payload)] = byte
    try:
        parse(bytes(payload), version)
        right = True
    except NotOurs:
        right = False
    assert sieve(version, bytes(payload)) == right


@given(st.binary(max_size=80), st.sampled_from([4, 6]))
def test_garbage_does_not_get_in(payload: bytes, version: int) -> None:
    assert not sieve(version, payload)
    assert not sieve(version, b"pwh\x01" + payload[:15])


@pytest.mark.parametrize("version", [4, 6])
def test_only_from_the_port_and_from_where_peers_can_be(version: int) -> None:
    payload = render(Packet(False, 0, smallest(version), 7), version)
    assert sieve(version, payload)
    assert not sieve(version, payload, port=9)
    own, other = {4: ("127.1.0.1", "10.0.0.0"), 6: ("::5", "fd00::4")}[version]
    assert sieve(version, payload, foreign=foreign_bits(version, [own]))
    assert not sieve(version, payload, foreign=foreign_bits(version, [other]))
    assert not sieve(version, payload, foreign=foreign_bits(version, []))


@given(st.lists(st.ip_addresses(v=4), min_size=1), st.ip_addresses(v=4))
def test_no_known_address_is_foreign(known: list[object], other: object) -> None:
    (bits,) = foreign_bits(4, map(str, known))
    for address in known:
        assert not int(address) & bits  # type: ignore[call-overload]
    if other in known:
        assert not int(other) & bits  # type: ignore[call-overload]


def test_pods_of_prefixes_of_one_length_are_foreign() -> None:
    (bits,) = foreign_bits(4, (f"10.244.{n // 4}.{n % 4 * 64}" for n in range(1000)))
    ten = 10 << 24 | 244 << 16
    assert all((ten + n) & bits for n in range(1, 4000) if n % 64)
    words = foreign_bits(6, (f"fd00:10:244:{n:x}::" for n in range(1000)))
    assert words[2:] == (0xFFFFFFFF, 0xFFFFFFFF)
