"""What the kernel lets into a socket of probes: what can be a peer's, by its form and its sender.

Whatever a stranger sends beyond that takes no room in the socket's queue and no time of this
process. Classic BPF (linux/filter.h): for a UDP socket, offsets begin at the UDP header.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence

from daemon.probes.protocol import HEADERS, Path, smallest

_SO_ATTACH_FILTER = 26
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_INSTRUCTION = struct.Struct("=HBBI")
# linux/bpf_common.h: loads of a word, half, byte at a place; jumps that compare; the end.
_WORD, _HALF, _BYTE = 0x20, 0x28, 0x30
_SUB, _TO_X = 0x14, 0x07
_IF_EQUAL, _IF_EQUAL_X, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x1D, 0x35, 0x45
_RETURN = 0x06
_NETWORK = 0xFFF00000
"""SKF_NET_OFF: places from there on begin at the IP header."""
_SOURCE = {4: 12, 6: 8}
"""Where the sender's address is in an IP header."""
_UDP = 8
_START = int.from_bytes(b"pwh\x01")
_PROBE, _ANSWER = 1, 2
_TAKE, _DROP = 0xFE, 0xFF
"""Jumps to the last two steps, wherever they will be."""

Step = tuple[int, int, int, int]
"""Operation, jumps if true and if false, operand."""


def foreign_bits(version: int, addresses: Iterable[str]) -> tuple[int, ...]:
    """The bits that none of the addresses has, in words of 32: whoever has one is a stranger.

    Peers probe from the first addresses of their prefixes, which end in zeros; pods' do not.
    """
    length, known = (4 if version == 4 else 16), 0
    for address in addresses:
        known |= int.from_bytes(socket.inet_pton(_FAMILIES[version], address))
    free = known ^ ((1 << 8 * length) - 1)
    return struct.unpack(f"!{length // 4}I", free.to_bytes(length))


def render_filter(version: int, port: int, foreign: Sequence[int]) -> bytes:
    """The program that takes in what podwire sends from that port, as `wire` has it."""
    ip = HEADERS[version] - _UDP
    steps: list[Step] = [(_HALF, 0, 0, 0), (_IF_EQUAL, 0, _DROP, port)]
    for place, bits in enumerate(foreign):
        if bits:
            where = _NETWORK + _SOURCE[version] + 4 * place
            steps += [(_WORD, 0, 0, where), (_IF_ANY_BIT, _DROP, 0, bits)]
    steps += [(_WORD, 0, 0, _UDP), (_IF_EQUAL, 0, _DROP, _START)]
    # An answer is a header alone; a probe has the size that it says.
    steps += [
        (_BYTE, 0, 0, _UDP + 4),
        (_IF_EQUAL, 0, 2, _ANSWER),
        (_HALF, 0, 0, 4),
        (_IF_EQUAL, _TAKE, _DROP, smallest(version) - ip),
        (_IF_EQUAL, 0, _DROP, _PROBE),
        (_HALF, 0, 0, _UDP + 6),
        (_SUB, 0, 0, ip),
        (_TO_X, 0, 0, 0),
        (_HALF, 0, 0, 4),
        (_IF_EQUAL_X, 0, _DROP, 0),
        (_IF_AT_LEAST, 0, _DROP, smallest(version) - ip),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    ]
    return _assemble(steps)


def _assemble(steps: Sequence[Step]) -> bytes:
    ends = {_TAKE: len(steps) - 2, _DROP: len(steps) - 1}
    code = b""
    for place, (operation, true, false, operand) in enumerate(steps):
        jumps = (ends[jump] - place - 1 if jump in ends else jump for jump in (true, false))
        code += _INSTRUCTION.pack(operation, *jumps, operand)
    return code


def attach(to: socket.socket, path: Path, port: int, foreign: Sequence[int]) -> None:
    """Let nothing else in from now on, in the place of an earlier filter. Raises OSError."""
    code = render_filter(path.version, port, foreign)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // _INSTRUCTION.size, ctypes.addressof(kept))
    to.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
