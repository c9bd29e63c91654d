"""Probes on the wire: read back as written, and nothing else is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.probes.protocol import (
    HEADERS,
    InvalidPacket,
    Packet,
    Path,
    parse,
    parse_header,
    render,
    smallest,
)

VERSIONS = st.sampled_from([4, 6])


@st.composite
def packets(draw: st.DrawFn) -> tuple[Packet, int]:
    version = draw(VERSIONS)
    return Packet(
        draw(st.booleans()),
        draw(st.integers(smallest(version), 65535)),
        draw(st.integers(0, 2**64 - 1)),
        draw(st.integers(0, 15)),
        draw(st.integers(0, 2**32 - 1)),
    ), version


@given(packets())
def test_a_packet_is_read_as_it_was_written(case: tuple[Packet, int]) -> None:
    packet, version = case
    payload = render(packet, version)
    assert parse(payload, version) == packet
    assert parse_header(payload) == packet
    if not packet.is_answer:
        assert len(payload) == packet.size - HEADERS[version]


@given(packets())
def test_no_answer_is_longer_than_its_probe(case: tuple[Packet, int]) -> None:
    packet, version = case
    probe = render(packet._replace(is_answer=False), version)
    assert len(render(packet._replace(is_answer=True), version)) <= len(probe)


@given(packets(), st.integers(-30, 30).filter(bool))
def test_a_packet_of_another_length_is_not_read(case: tuple[Packet, int], more: int) -> None:
    packet, version = case
    payload = render(packet, version)
    payload = payload + bytes(more) if more > 0 else payload[:more]
    with pytest.raises(InvalidPacket):
        parse(payload, version)


@given(st.binary(max_size=100), VERSIONS)
def test_of_any_bytes_it_is_a_packet_or_invalid(payload: bytes, version: int) -> None:
    try:
        packet = parse(payload, version)
    except InvalidPacket:
        return
    assert render(packet, version)[:20] == payload[:20]


@given(packets(), st.integers(0, 4), st.integers(1, 255))
def test_magic_version_and_type_count(case: tuple[Packet, int], place: int, flip: int) -> None:
    packet, version = case
    payload = bytearray(render(packet, version))
    payload[place] ^= flip
    if payload[:4] == b"pwh\x01" and payload[4] in (1, 2):
        return  # the other type, whose length differs or does not
    with pytest.raises(InvalidPacket):
        parse(bytes(payload), version)


def test_paths() -> None:
    assert [(p.version, p.is_pod) for p in Path] == [(4, True), (6, True), (4, False), (6, False)]
    assert sum(path.bit for path in Path) == 15
