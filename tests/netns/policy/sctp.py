"""SCTP without sockets of it, which few kernels have: a connection's first packet, made by hand."""

from __future__ import annotations

import socket
import struct

from tests.netns.policy.conftest import Pod

_PROTOCOL = 132
_SECONDS = 2.0


def arrives(source: Pod, target: Pod, port: int) -> bool:
    """Whether an INIT of a new association arrives at a pod's port."""
    with (
        source.ns.call(_raw) as sender,
        target.ns.call(_raw) as receiver,
    ):
        receiver.settimeout(_SECONDS)
        sender.sendto(_init(port), (target.addresses[4], 0))
        try:
            packet = receiver.recv(2048)
        except TimeoutError:
            return False
        length = (packet[0] & 0xF) * 4
        return struct.unpack_from("!HH", packet, length) == (_PORT, port)


_PORT = 40_000


def _raw() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, _PROTOCOL)


def _init(port: int) -> bytes:
    """RFC 9260, section 3.3.2; connection tracking checks the sum, and that the tag is no zero."""
    chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 0x01020304, 1 << 16, 1, 1, 1)
    head = struct.pack("!HHI", _PORT, port, 0)
    # The one field in the byte order of its algorithm (appendix A).
    return head + struct.pack("<I", _crc32c(head + bytes(4) + chunk)) + chunk


def _crc32c(data: bytes) -> int:
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF
