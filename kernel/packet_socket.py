"""Packet sockets: the frames that pass a link, in both directions (packet(7))."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from kernel.errors import KernelError
from kernel.netns import Namespace, inside
from kernel.socket_filter import Program, attach_filter

_ALL, _OUTGOING = 0x0003, 4  # ETH_P_ALL, PACKET_OUTGOING (linux/if_ether.h, if_packet.h)
_SOL_PACKET, _STATISTICS = 263, 6
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_TIMESPEC = struct.Struct("@qq")
_BUFFER_BYTES = 8 << 20
_FRAME_MAX = 65535 + 18  # bytes: of an IP packet, with the Ethernet header and a VLAN tag
_AT_ONCE = 1000


class Frame(NamedTuple):
    """A frame. time: in ns since 1970. outgoing: whether the link sent it."""

    data: bytes
    time: int
    outgoing: bool


class PacketSocket(AbstractContextManager["PacketSocket"]):
    """All frames of one link, from now on."""

    def __init__(
        self, link: str, namespace: Namespace | None = None, program: Program = ()
    ) -> None:
        """namespace: the link's; None for the calling thread's. program: what accepts its frames;
        empty: all are. Raises KernelError.
        """
        self.link, self._dropped = link, 0
        try:
            with inside(namespace) if namespace else nullcontext():
                self._socket = _open(link, program)
        except OSError as error:
            raise KernelError("watch link", link, error.errno or 0) from error

    def __exit__(self, *_exception: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """For select(2)."""
        return self._socket.fileno()

    def read(self) -> Iterator[Frame]:
        """The frames that wait, as many as are read at once. Raises KernelError."""
        for _ in range(_AT_ONCE):
            try:
                data, extra, _flags, origin = self._socket.recvmsg(_FRAME_MAX, 64)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # the link is down; it may come up again
                    return
                raise KernelError("watch link", self.link, error.errno or 0) from error
            yield Frame(data, _time(extra), origin[2] == _OUTGOING)

    @property
    def dropped(self) -> int:
        """Frames that came too fast to be read, so far."""
        raw = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        # Reading resets the kernel's counter (net/packet/af_packet.c, packet_getsockopt).
        self._dropped += struct.unpack("=2I", raw)[1]
        return self._dropped


def _time(extra: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds * 1_000_000_000 + nanoseconds)
    return time.time_ns()


def _open(link: str, program: Program) -> socket.socket:
    # Without a protocol nothing is received until the socket is bound to its link.
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        made.setblocking(False)
        if program:
            attach_filter(made, program)
        made.bind((link, _ALL))
    except OSError:
        made.close()
        raise
    return made
