"""Files of captured frames, of several links (draft-ietf-opsawg-pcapng); pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SECTION, _INTERFACE, _STATISTICS, _FRAME = 0x0A0D0D0A, 1, 5, 6
_MAGIC, _ETHERNET, _WHOLE = 0x1A2B3C4D, 1, 0
_APPLICATION, _NAME, _DESCRIPTION, _RESOLUTION, _FLAGS, _DROPPED = 4, 2, 3, 9, 2, 5
_NANOSECONDS = b"\x09"  # 10 to the power of -9
_IN, _OUT = 1, 2
_TEXT_MAX = 0xFFFF


@dataclass(frozen=True, slots=True)
class Interface:
    """A link of which there are frames."""

    name: str
    description: str


def begin(interfaces: Sequence[Interface]) -> bytes:
    """The file's beginning. Frames name the interfaces by their place in the list."""
    head = struct.pack("=IHHq", _MAGIC, 1, 0, -1)  # the section's length is not known yet
    blocks = [_block(_SECTION, head + _options([(_APPLICATION, b"podwirectl capture")]))]
    for each in interfaces:
        options = _options(
            [(_NAME, _text(each.name)), (_DESCRIPTION, _text(each.description)),
             (_RESOLUTION, _NANOSECONDS)]
        )  # fmt: skip
        blocks.append(_block(_INTERFACE, struct.pack("=HxxI", _ETHERNET, _WHOLE) + options))
    return b"".join(blocks)


def render_frame(interface: int, time: int, data: bytes, length: int, *, outgoing: bool) -> bytes:
    """A frame. time: in ns since 1970. data: its beginning, of `length` bytes in all."""
    head = struct.pack("=5I", interface, time >> 32, time & 0xFFFFFFFF, len(data), length)
    flags = struct.pack("=I", _OUT if outgoing else _IN)
    return _block(_FRAME, head + _padded(data) + _options([(_FLAGS, flags)]))


def render_dropped(interface: int, time: int, dropped: int) -> bytes:
    """How many frames of a link came too fast to be read."""
    head = struct.pack("=3I", interface, time >> 32, time & 0xFFFFFFFF)
    return _block(_STATISTICS, head + _options([(_DROPPED, struct.pack("=Q", dropped))]))


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    parts = [struct.pack("=HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join([*parts, bytes(4)])


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _text(text: str) -> bytes:
    return text.encode(errors="replace")[:_TEXT_MAX]
