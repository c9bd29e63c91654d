"""DNS messages (RFC 1035): queries as a resolver sends them, and what matters of answers.

Answers come from anybody: whatever is in them, they are parsed, or refused as BadAnswer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from kernel.model import IPAddress

TYPES = {"A": 1, "AAAA": 28}
_KINDS = {number: name for name, number in TYPES.items()} | {
    5: "CNAME", 12: "PTR", 15: "MX", 16: "TXT", 33: "SRV", 65: "HTTPS",
}  # fmt: skip
PORT = 53
_IN = 1
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_RESPONSE, _TRUNCATED, _RECURSE, _CODE = 0x8000, 0x0200, 0x0100, 0x000F
_POINTER, _LABEL_MAX, _NAME_MAX = 0xC0, 63, 255
_RECORDS_MAX = 1000
_CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class BadName(ValueError):
    """A name that cannot be asked for; the message says why."""


class BadAnswer(ValueError):
    """A datagram that is no answer to the query; the message says why."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question. name: without the dot at its end."""

    number: int
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Reply:
    """code: NOERROR, NXDOMAIN, ...; addresses: of the type that was asked for."""

    code: str
    addresses: tuple[IPAddress, ...] = ()
    truncated: bool = False


def encode(query: Query) -> bytes:
    """The query's bytes. Raises BadName."""
    head = _HEADER.pack(query.number, _RECURSE, 1, 0, 0, 0)
    return head + encode_name(query.name) + struct.pack("!2H", TYPES[query.kind], _IN)


def encode_name(name: str) -> bytes:
    """A name's labels. Raises BadName."""
    labels = [_encode_label(label, name) for label in name.rstrip(".").split(".")]
    encoded = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(encoded) > _NAME_MAX:
        raise BadName(f"{name[:60]!r}... is longer than a name can be (253 characters)")
    return encoded


def _encode_label(label: str, name: str) -> bytes:
    try:
        encoded = label.encode("ascii")
    except UnicodeEncodeError as error:
        raise BadName(f"{name!r} has characters that are not ASCII: give its xn-- form") from error
    if not 0 < len(encoded) <= _LABEL_MAX:
        raise BadName(f"{name!r} has a part of {len(encoded)} characters: 1 to 63 are possible")
    return encoded


@dataclass(frozen=True, slots=True)
class Heading:
    """What any message of DNS begins with. code: empty in a query. kind: A, AAAA, or a number."""

    number: int
    name: str
    kind: str
    code: str


def read_heading(data: bytes) -> Heading:
    """Header and question of a message that another program sent. Raises BadAnswer."""
    try:
        number, flags, questions = _HEADER.unpack_from(data)[:3]
        if questions != 1:
            raise BadAnswer(f"it has {questions} questions")
        name, offset = _read_name(data, _HEADER.size)
        kind, _class = struct.unpack_from("!2H", data, offset)
    except (struct.error, IndexError) as error:
        raise BadAnswer("it ends too early") from error
    code = _code(flags) if flags & _RESPONSE else ""
    return Heading(number, name.lower(), _KINDS.get(kind, str(kind)), code)


def _code(flags: int) -> str:
    return _CODES.get(flags & _CODE, f"code {flags & _CODE}")


def decode(data: bytes, query: Query) -> Reply:
    """The answer to a query. Raises BadAnswer."""
    try:
        return _decode(data, query)
    except (struct.error, IndexError) as error:
        raise BadAnswer("it ends too early") from error


def _decode(data: bytes, query: Query) -> Reply:
    number, flags, questions, answers, _authorities, _more = _HEADER.unpack_from(data)
    if number != query.number or not flags & _RESPONSE:
        raise BadAnswer("it answers another query")
    code, offset = _code(flags), _HEADER.size
    if questions == 0 and code != "NOERROR":
        return Reply(code)  # a server that could not read the question need not repeat it
    if questions != 1:
        raise BadAnswer(f"it has {questions} questions")
    name, offset = _read_name(data, offset)
    kind, class_ = struct.unpack_from("!2H", data, offset)
    asked = (query.name.rstrip(".").lower(), TYPES[query.kind], _IN)
    if (name.lower(), kind, class_) != asked:
        raise BadAnswer("it answers another question")
    truncated = bool(flags & _TRUNCATED)
    return Reply(code, _read_addresses(data, offset + 4, answers, kind), truncated)


def _read_addresses(data: bytes, offset: int, count: int, wanted: int) -> tuple[IPAddress, ...]:
    found: list[IPAddress] = []
    for _ in range(min(count, _RECORDS_MAX)):
        if offset >= len(data):  # cut off, as truncated answers may be
            break
        _owner, offset = _read_name(data, offset)
        kind, class_, _ttl, length = _RECORD.unpack_from(data, offset)
        offset += _RECORD.size
        payload = data[offset : offset + length]
        offset += length
        if (kind, class_) == (wanted, _IN):
            found.append(_address(payload))
    return tuple(found)


def _address(payload: bytes) -> IPAddress:
    if len(payload) == 4:
        return IPv4Address(payload)
    if len(payload) == 16:
        return IPv6Address(payload)
    raise BadAnswer(f"an address in it has {len(payload)} bytes")


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    """A name, and where what follows it begins. Pointers may lead back only, so no loop is one."""
    labels: list[str] = []
    size, end, limit = 0, 0, offset
    while True:
        length = data[offset]
        if length & _POINTER == _POINTER:
            target = struct.unpack_from("!H", data, offset)[0] & 0x3FFF
            end = end or offset + 2
            if target >= limit:
                raise BadAnswer("a name in it leads forward")
            offset = limit = target
            continue
        if length > _LABEL_MAX:
            raise BadAnswer("a name in it is none")
        size += length + 1
        if size > _NAME_MAX:
            raise BadAnswer("a name in it is too long")
        offset += 1
        if length == 0:
            return ".".join(labels), end or offset
        label = data[offset : offset + length]
        if len(label) < length:
            raise BadAnswer("it ends too early")
        labels.append(label.decode("ascii", "backslashreplace"))
        offset += length
