"""Probes and their answers on the wire: one UDP datagram each, in podwire's own format.

bytes  0-2    "pwh"
       3      version, 1
       4      type: 1 a probe, 2 an answer
       5      paths by which the sender received probes from the receiver lately (4 bits)
       6-7    size of the probe's IP packet
       8-15   nonce, the same in the answer
       16-19  microseconds from the arrival of the probe to its answer
then zeros up to the probe's size. An answer has these 20 bytes alone. It is never longer than its
probe, so a forged source address gains no amplification.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

_HEADER = struct.Struct("!3sBBBHQI")
_MAGIC, _VERSION = b"pwh", 1
_PROBE, _ANSWER = 1, 2
HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Bytes of the IP header without options and of the UDP header, by address family."""
DELAY_MAX = 0xFFFFFFFF


class Path(IntEnum):
    """A path between two nodes: over the pod network or between the nodes' own addresses."""

    POD4 = 0
    POD6 = 1
    UNDERLAY4 = 2
    UNDERLAY6 = 3

    @property
    def version(self) -> int:
        """The address family, 4 or 6."""
        return 6 if self & 1 else 4

    @property
    def is_pod(self) -> bool:
        """Whether it leads over the pod network, as pods' packets go."""
        return self < Path.UNDERLAY4

    @property
    def bit(self) -> int:
        """Its bit in a set of paths."""
        return 1 << self


def smallest(version: int) -> int:
    """The size of the smallest probe's IP packet, in bytes."""
    return HEADERS[version] + _HEADER.size


class InvalidPacket(Exception):
    """A datagram that no podwire sends."""


class Packet(NamedTuple):
    """A probe or an answer.

    size: of the probe's IP packet, in bytes. received: bits of paths, see the module's docstring.
    delay: from the probe's arrival to its answer, in microseconds.
    """

    is_answer: bool
    size: int
    nonce: int
    received: int = 0
    delay: int = 0


def render(packet: Packet, version: int) -> bytes:
    """The UDP payload of a packet: a probe is padded to its size."""
    kind = _ANSWER if packet.is_answer else _PROBE
    head = _HEADER.pack(
        _MAGIC, _VERSION, kind, packet.received, packet.size, packet.nonce, packet.delay
    )
    return head if packet.is_answer else head.ljust(packet.size - HEADERS[version], b"\0")


def parse(payload: bytes | memoryview, version: int) -> Packet:
    """The packet in a payload of that address family. Raises InvalidPacket."""
    packet = parse_header(payload)
    expected = _HEADER.size if packet.is_answer else packet.size - HEADERS[version]
    if len(payload) != expected or expected < _HEADER.size:
        raise InvalidPacket(f"a payload of {len(payload)} bytes")
    return packet


def parse_header(payload: bytes | memoryview) -> Packet:
    """The packet at the beginning of a payload; ICMP errors quote no more. Raises InvalidPacket."""
    if len(payload) < _HEADER.size:
        raise InvalidPacket(f"a payload of {len(payload)} bytes")
    magic, number, kind, paths, size, nonce, delay = _HEADER.unpack_from(payload)
    if magic != _MAGIC or number != _VERSION or kind not in (_PROBE, _ANSWER):
        raise InvalidPacket(f"a payload that begins with {bytes(payload[:5])!r}")
    return Packet(kind == _ANSWER, size, nonce, paths & 0xF, delay)
