"""Classic BPF programs of sockets (linux/filter.h): what they do not accept is never received."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

_SO_ATTACH_FILTER = 26

Program = Sequence[tuple[int, int, int, int]]
"""Instructions: code, jumps where a comparison is true and where it is false, value."""


def attach_filter(made: socket.socket, program: Program) -> None:
    """Let a socket receive what the program accepts alone. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    # struct sock_fprog: how many instructions, and where they are.
    argument = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
