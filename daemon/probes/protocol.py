"""Probes and their answers on the wire: one UDP datagram each, of podwire's own format.

bytes  0-2  "pwh"          4  type: 1 a probe, 2 an answer     6-7   size of the probe's IP packet
       3    version, 1     5  paths on which the sender has    8-15  nonce, which the answer has
                              heard from the receiver lately,        too
                              and 4 bits up those on which it
                              is flooded
                                                               16-19 microseconds that the probe
                                                                     waited for its answer
and zeros up to the probe's size. An answer is these 20 bytes alone: never longer than its probe,
so that a forged sender's address multiplies nothing.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

_HEADER = struct.Struct("!3sBBBHQI")
_MAGIC, _VERSION = b"pwh", 1
_PROBE, _ANSWER = 1, 2
HEADERS = {4: 20 + 8, 6: 40 + 8}
"""Bytes of the IP header without options, and of the UDP header, by address family."""
HELD_MAX = 0xFFFFFFFF
DEAF_SHIFT = 4


class Path(IntEnum):
    """One way between two nodes: by which addresses of theirs, and of which family."""

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
        """Its place in what was heard."""
        return 1 << self


def pod_path(version: int) -> Path:
    """The path over the pod network of that family."""
    return Path.POD4 if version == 4 else Path.POD6


def underlay_path(version: int) -> Path:
    """The path by the nodes' own addresses of that family."""
    return Path.UNDERLAY4 if version == 4 else Path.UNDERLAY6


def smallest(version: int) -> int:
    """The size of the smallest probe's IP packet, in bytes."""
    return HEADERS[version] + _HEADER.size


class NotOurs(Exception):
    """A datagram that no podwire sends."""


class Packet(NamedTuple):
    """A probe or an answer. size: of the probe's whole IP packet, in bytes.

    heard: the bits of the paths on which its sender has heard from its receiver lately, and
    DEAF_SHIFT up of those on which more comes to its sender than that reads. held: for how many
    microseconds the probe waited for its answer.
    """

    is_answer: bool
    heard: int
    size: int
    nonce: int
    held: int = 0


def render(packet: Packet, version: int) -> bytes:
    """The payload that makes an IP packet of the probe's size (an answer: the smallest one)."""
    kind = _ANSWER if packet.is_answer else _PROBE
    numbers = packet.heard, packet.size, packet.nonce, packet.held
    head = _HEADER.pack(_MAGIC, _VERSION, kind, *numbers)
    return head if packet.is_answer else head.ljust(packet.size - HEADERS[version], b"\0")


def parse(payload: bytes | memoryview, version: int) -> Packet:
    """The packet in a payload that came by that address family. Raises NotOurs."""
    packet = parse_head(payload)
    wanted = _HEADER.size if packet.is_answer else packet.size - HEADERS[version]
    if len(payload) != wanted or wanted < _HEADER.size:
        raise NotOurs(f"a payload of {len(payload)} bytes")
    return packet


def parse_head(payload: bytes | memoryview) -> Packet:
    """The packet that a payload begins with: errors bring back no more. Raises NotOurs."""
    if len(payload) < _HEADER.size:
        raise NotOurs(f"a payload of {len(payload)} bytes")
    magic, number, kind, heard, size, nonce, held = _HEADER.unpack_from(payload)
    if magic != _MAGIC or number != _VERSION or kind not in (_PROBE, _ANSWER):
        raise NotOurs(f"a payload that begins with {bytes(payload[:5])!r}")
    return Packet(kind == _ANSWER, heard, size, nonce, held)
