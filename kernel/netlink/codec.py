"""Netlink's byte layout: messages and attributes (RFC 3549; linux/netlink.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
NLM_F_ACK_TLVS = 0x200
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
"""An address family by its version."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_read_attribute, _pack_attribute = _ATTRIBUTE.unpack_from, _ATTRIBUTE.pack
_pack_u32 = struct.Struct("=HHI").pack
_PADDING = (b"", bytes(3), bytes(2), bytes(1))  # by the length's remainder of 4


class Message(NamedTuple):
    """One netlink request, or one answer: type, flags and all that follows the header.

    what: how errors name it ("add address", 10.0.0.2/24, "to", "eth0"); joined only then.
    ack: whether it can be acknowledged; the frame of an nftables transaction cannot.
    """

    type: int
    flags: int
    body: bytes
    what: str | tuple[object, ...] = ""
    ack: bool = True

    def __str__(self) -> str:
        """How errors name it."""
        return self.what if isinstance(self.what, str) else " ".join(map(str, self.what))


def pack(message: Message, sequence: int, flags: int = 0) -> bytes:
    """A message with its header, padded to the alignment that the next one needs.

    flags: more than the message's own, and NLM_F_REQUEST.
    """
    length = _HEADER.size + len(message.body)
    flags |= message.flags | NLM_F_REQUEST
    head = _HEADER.pack(length, message.type, flags, sequence, 0)
    return head + message.body + bytes(-length % 4)


def unpack(data: bytes) -> Iterator[tuple[int, int, Message]]:
    """(sequence, port, message) for each message in a received datagram.

    port: the sender's, in a notification that of who made the change.
    """
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield sequence, port, Message(kind, flags, data[offset + _HEADER.size : offset + length])
        offset += length + (-length % 4)


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute: length, type, payload, padding."""
    length = 4 + len(payload)
    return _pack_attribute(length, kind) + payload + _PADDING[length & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return attribute(kind, bytes((value,)))


def u32(kind: int, value: int) -> bytes:
    """An attribute of 32 bits in the machine's order (rtnetlink)."""
    return _pack_u32(8, kind, value)


def be32(kind: int, value: int) -> bytes:
    """An attribute of 32 bits in network order (nfnetlink)."""
    return attribute(kind, struct.pack("!I", value))


def nfgen(family: int = 0, resource: int = 0) -> bytes:
    """A struct nfgenmsg (linux/netfilter/nfnetlink.h). family: NFPROTO_*, 0 for all."""
    return struct.pack("!BBH", family, 0, resource)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes of a body by type; the last one of a type wins."""
    # A loop of its own: a link has some fifty, and every ADD reads links.
    found: dict[int, bytes] = {}
    last = len(data) - _ATTRIBUTE.size
    while offset <= last:
        length, kind = _read_attribute(data, offset)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def attribute_list(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes of a body in order, for lists whose items share one type."""
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & NLA_TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += length + (-length % 4)


def first_attribute(data: bytes, offset: int, wanted: int) -> bytes | None:
    """The payload of the first attribute of a type; what comes after it is not read."""
    return next((value for kind, value in attribute_list(data, offset) if kind == wanted), None)


def number(payload: bytes) -> int:
    """A 32-bit attribute's value in the machine's order."""
    return int(struct.unpack_from("=I", payload)[0])


def number_in(found: Mapping[int, bytes], kind: int) -> int:
    """The same of one of some attributes; 0 where it is not among them."""
    return number(found[kind]) if kind in found else 0


def mac_bytes(mac: str) -> bytes:
    """A MAC address as an attribute holds it."""
    return bytes.fromhex(mac.replace(":", ""))


def string(payload: bytes) -> str:
    """A NUL-terminated attribute's value; bytes that are not UTF-8 are shown escaped."""
    return payload.rstrip(b"\0").decode(errors="backslashreplace")
