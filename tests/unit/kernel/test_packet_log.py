"""Logged packets; what they hold is hostile."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from kernel.packet_log import LoggedPacket, parse_packet

ONE, TWO = ip_address("10.0.0.1"), ip_address("10.0.0.2")
ONE6, TWO6 = ip_address("fd00::1"), ip_address("fd00::2")


def ipv4(protocol: int, payload: bytes, words: int = 5) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x40 | words, 0, 0, 0, 0, 64, protocol, 0)
    return head + ONE.packed + TWO.packed + bytes(4 * words - 20) + payload


def test_ports_are_read_behind_options() -> None:
    ports = struct.pack("!HHI", 1234, 80, 0)
    expected = LoggedPacket("denied ingress", ONE, TWO, 6, 80)
    assert parse_packet("denied ingress ", ipv4(6, ports)) == expected
    assert parse_packet("denied ingress", ipv4(6, ports, words=6)) == expected
    assert parse_packet("x", ipv4(132, ports)) == LoggedPacket("x", ONE, TWO, 132, 80)
    head = struct.pack("!IHBB", 6 << 28, 8, 17, 64) + ONE6.packed + TWO6.packed
    assert parse_packet("x", head + ports) == LoggedPacket("x", ONE6, TWO6, 17, 80)


def test_what_has_no_ports_has_none() -> None:
    assert parse_packet("x", ipv4(1, b"\x08\0\0\x50" + bytes(4))) == LoggedPacket("x", ONE, TWO, 1)
    assert parse_packet("x", ipv4(6, b"\x08")) == LoggedPacket("x", ONE, TWO, 6)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_packet_or_none(data: bytes) -> None:
    packet = parse_packet("x", data)
    assert packet is None or 0 <= packet.port <= 65535
    assert packet is None or len(data) >= {4: 20, 6: 40}[packet.source.version]
