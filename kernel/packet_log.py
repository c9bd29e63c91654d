"""Packets that rules log to a group (NFLOG), through nfnetlink_log.

Format: linux/netfilter/nfnetlink_log.h. What the packets hold is hostile.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.netlink.codec import Message, attribute, attributes, string, u8, unpack
from kernel.netlink.socket import NETLINK_NETFILTER, Netlink
from kernel.packets import decode_ip

_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1  # NFNL_SUBSYS_ULOG, NFULNL_MSG_*
_CFG_COMMAND, _CFG_MODE, _BIND, _COPY_PACKET = 1, 2, 1, 2
_PAYLOAD, _PREFIX = 9, 10  # NFULA_*
_HEADER_BYTES = 4  # struct nfgenmsg
_COPIED = 128  # bytes of a packet
_RECEIVE_BYTES = 1 << 16
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class LoggedPacket:
    """A packet. prefix: that of the rule. port: its destination's; 0 where it has none."""

    prefix: str
    source: IPAddress
    destination: IPAddress
    protocol: int
    port: int = 0


class PacketLog(AbstractContextManager["PacketLog"]):
    """The packets of a group, in the namespace of the thread that opens it."""

    def __init__(self, group: int) -> None:
        """Subscribe. Raises KernelError, with errno EBUSY where another program has the group."""
        body = struct.pack("!BBH", 0, 0, group)
        mode = struct.pack("!IBB", _COPIED, _COPY_PACKET, 0)
        messages = [
            Message(
                _CONFIG, 0, body + u8(_CFG_COMMAND, _BIND), f"subscribe to NFLOG group {group}"
            ),
            Message(_CONFIG, 0, body + attribute(_CFG_MODE, mode), f"set up NFLOG group {group}"),
        ]
        self._nl = Netlink(NETLINK_NETFILTER)
        try:
            self._nl.run(messages)
        except KernelError:
            self._nl.close()
            raise

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription."""
        self._nl.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there are packets."""
        return self._nl.fileno()

    def read(self) -> list[LoggedPacket]:
        """The packets since the last call that can be read; does not wait."""
        return [packet for data in self._datagrams() for packet in parse_packets(data)]

    def _datagrams(self) -> Iterator[bytes]:
        for _ in range(_AT_ONCE):
            try:
                yield self._nl.receive_now(_RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # some were lost
                    raise


def parse_packets(data: bytes) -> Iterator[LoggedPacket]:
    """The packets in a datagram of the kernel; what is no whole packet is left out."""
    for _sequence, _port, message in unpack(data):
        if message.type != _PACKET:
            continue
        found = attributes(message.body, _HEADER_BYTES)
        packet = parse_packet(string(found.get(_PREFIX, b"")), found.get(_PAYLOAD, b""))
        if packet:
            yield packet


def parse_packet(prefix: str, data: bytes) -> LoggedPacket | None:
    """A packet from its IP header on; None where it is cut off too early."""
    packet = decode_ip(data)
    if packet is None:
        return None
    port = packet.ports[1] if packet.ports else 0
    return LoggedPacket(prefix.strip(), packet.source, packet.to, packet.protocol, port)
