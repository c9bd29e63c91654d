"""Frames are decoded; hostile ones are passed over."""

import struct
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.packets import decode, describe_flags, describe_icmp

ETHERNET = bytes(12)
SYN = struct.pack("!HHIIBBHHH", 40000, 80, 7, 0, 0x50, 0x02, 100, 0, 0)


def ipv4(protocol: int, data: bytes) -> bytes:
    ends = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 1, 0, 64, protocol, 0) + ends + data


def ipv6(protocol: int, data: bytes) -> bytes:
    ends = ip_address("fd00::1").packed + ip_address("fd00::2").packed
    return struct.pack("!IHBB", 6 << 28, len(data), protocol, 64) + ends + data


def frame(packet: bytes) -> bytes:
    return ETHERNET + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def udp(port: int, data: bytes) -> bytes:
    return struct.pack("!HHHH", 5000, port, 8 + len(data), 0) + data


VXLAN = udp(8472, b"\x08\0\0\0\0\0\x07\0" + frame(ipv6(6, SYN)))


@pytest.mark.parametrize("wrap", [ipv4, ipv6])
def test_tcp(wrap: Callable[[int, bytes], bytes]) -> None:
    found = decode(frame(wrap(6, SYN)))
    assert found is not None
    assert (found.name, found.ports, found.sequence) == ("tcp", (40000, 80), 7)
    assert describe_flags(found) == "S"


def test_what_vxlan_carries() -> None:
    found = decode(frame(ipv4(17, VXLAN)))
    assert found is not None
    assert found.vni == 7
    assert found.inner is not None
    assert str(found.inner.to) == "fd00::2"
    assert [layer.name for layer in found.layers] == ["udp", "tcp"]
    other = decode(frame(ipv4(17, VXLAN)), vxlan_port=4789)
    assert other is not None
    assert other.inner is None


def test_an_error_quotes_its_packet() -> None:
    # RFC 792: the header and eight bytes are enough.
    quoted = ipv4(6, SYN)[:28]
    found = decode(frame(ipv4(1, struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + quoted)))
    assert found is not None
    assert found.is_error
    assert found.quoted is not None
    assert found.quoted.ports == (40000, 80)
    assert describe_icmp(found) == "packet too big, MTU 1400"


@settings(max_examples=200)
@given(st.data())
def test_no_bytes_are_an_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([frame(ipv4(17, VXLAN)), frame(ipv6(6, SYN))]))
    cut = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if cut:
            cut[data.draw(st.integers(0, len(cut) - 1))] = data.draw(st.integers(0, 255))
    found = decode(bytes(cut))
    assert found is None or list(found.layers)
    decode(data.draw(st.binary(max_size=80)))
