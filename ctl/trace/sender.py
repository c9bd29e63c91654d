"""The packets of a trace: what sends them, and what tells them from all others."""

from __future__ import annotations

import errno
import os
import select
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from ipaddress import ip_address

from kernel.frames import echo_request
from kernel.model import IPAddress
from kernel.netlink.codec import FAMILY
from kernel.nftables.tracer import Match, flow_match, overlay_match
from kernel.packets import ECHO_REPLY, TCP, UDP, Packet

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_OVERHEAD = {4: 28, 6: 48}
_TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Flow:
    """What is sent. source: None where the kernel chooses it. protocol: of IP.

    size: of the IP packet in bytes, sent unfragmented; 0: the smallest.
    """

    source: IPAddress | None
    to: IPAddress
    protocol: int
    port: int = 0
    size: int = 0


class Sender(ABC):
    """What sends the packets of a flow, and what tells them from all others."""

    def __init__(self, flow: Flow, source: IPAddress | None, ident: int) -> None:
        """source: None where the node sends none to there. ident: the port, or that of an echo."""
        self.flow, self.source, self.ident = flow, source, ident
        self.token = os.urandom(_TOKEN_BYTES)
        self.sequence = -1  # of the packet that opens the connection, once it is known

    @abstractmethod
    def send(self) -> str:
        """Send; the error, empty where it was sent."""

    @abstractmethod
    def poll(self) -> tuple[str, str]:
        """Result and error so far; empty where nothing came."""

    @abstractmethod
    def close(self) -> None:
        """End what was begun."""

    @property
    def events(self) -> tuple[int, int] | None:
        """What to poll(2) for an answer; None where links show it."""
        return None

    def passes(self, link: str, packet: Packet, direction: str, *, outgoing: bool) -> bool:
        """Whether a packet at a link of the node is between that and what lies beyond the node."""
        del link, packet, direction, outgoing
        return False

    def body(self) -> bytes:
        """What the packet carries, to the flow's size."""
        room = self.flow.size - _OVERHEAD[self.flow.to.version] - len(self.token)
        return self.token + bytes(max(room, 0))

    def matches(self, overlay: tuple[int, int] | None) -> Iterator[Match]:
        """What the tracer traces. overlay: the family of the underlay, and the port of VXLAN."""
        version, protocol = self.flow.to.version, self.flow.protocol
        name = self.ident.to_bytes(2)
        has_ports = protocol in (TCP, UDP)
        # A port of ours is the packet's source and its answer's destination.
        for offset in (0, 2) if has_ports else (4,):
            source = self.source if has_ports and not offset else None
            yield flow_match(version, protocol, source, offset, name)
            if overlay:
                yield overlay_match(*overlay, version, offset, name)

    def direction(self, packet: Packet) -> str:
        """sent, answer or error where the packet is of ours, empty else."""
        flow = self.flow
        if packet.is_error and packet.quoted:
            return "error" if self._is_quoted(packet.quoted) else ""
        if packet.protocol != flow.protocol:
            return ""
        if flow.protocol == TCP:
            return self._tcp_direction(packet)
        if flow.protocol == UDP and packet.ports:
            if packet.payload.startswith(self.token) and packet.ports[1] != self.ident:
                return "sent"
            return "answer" if packet.ports[1] == self.ident else ""
        if packet.ident == self.ident and self.token in packet.payload:
            return "sent" if packet.is_request else "answer" if packet.is_reply else ""
        return ""

    def _tcp_direction(self, packet: Packet) -> str:
        if packet.ports is None:
            return ""
        opens = packet.flags & 0x12 == 0x02
        ends = packet.ports[0], packet.source
        if opens and self.sequence < 0 and ends == (self.ident, self.source):
            self.sequence = packet.sequence
        if opens and packet.sequence == self.sequence:
            return "sent"
        follows = packet.flags & 0x10 and self.sequence >= 0
        wanted = (self.sequence + 1) & 0xFFFFFFFF
        is_answer = follows and packet.acknowledged == wanted and packet.flags & 0x06
        return "answer" if is_answer else ""

    def _is_quoted(self, quoted: Packet) -> bool:
        if quoted.protocol != self.flow.protocol:
            return False
        if quoted.ports:
            return quoted.ports[0] == self.ident
        return quoted.ident == self.ident


class SocketSender(Sender):
    """A socket of the calling thread's namespace."""

    def __init__(self, flow: Flow) -> None:
        """Raises OSError."""
        kinds = {TCP: socket.SOCK_STREAM, UDP: socket.SOCK_DGRAM}
        kind = kinds.get(flow.protocol, socket.SOCK_RAW) | socket.SOCK_CLOEXEC
        family = FAMILY[flow.to.version]
        self._socket = socket.socket(family, kind, flow.protocol)
        self._socket.setblocking(False)
        has_ports = flow.protocol in (TCP, UDP)
        if flow.source:
            self._socket.bind((str(flow.source), 0))
        elif has_ports:
            self._socket.bind(("", 0))  # for a port; the address is chosen later
        ident = int(self._socket.getsockname()[1]) if has_ports else random_ident()
        super().__init__(flow, flow.source or find_source(flow.to), ident)
        if flow.size:
            level = socket.IPPROTO_IP if flow.to.version == 4 else socket.IPPROTO_IPV6
            option = _IP_MTU_DISCOVER if flow.to.version == 4 else _IPV6_MTU_DISCOVER
            self._socket.setsockopt(level, option, _PMTUDISC_DO)

    def close(self) -> None:
        """Close the socket, and with it the connection."""
        self._socket.close()

    @property
    def events(self) -> tuple[int, int] | None:
        """Its socket."""
        is_tcp = self.flow.protocol == TCP
        return self._socket.fileno(), select.POLLOUT if is_tcp else select.POLLIN

    def send(self) -> str:
        """Send; the error, empty where it was sent."""
        try:
            self._socket.connect((str(self.flow.to), self.flow.port))
            if self.flow.protocol == UDP:
                self._socket.send(self.body())
            elif self.flow.protocol != TCP:
                request = echo_request(self.flow.to.version, self.ident, 1, self.body())
                self._socket.send(request)
        except OSError as error:
            return "" if error.errno == errno.EINPROGRESS else os.strerror(error.errno or 0)
        return ""

    def poll(self) -> tuple[str, str]:
        """Result and error so far; empty where nothing came."""
        if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return _failed(code)
        if self.flow.protocol == TCP:
            try:
                self._socket.getpeername()
            except OSError:
                return "", ""
            return "answered", ""
        return self._receive()

    def _receive(self) -> tuple[str, str]:
        try:
            while True:
                data = self._socket.recv(65535)
                if self._is_reply(data):
                    return "answered", ""
        except BlockingIOError:
            return "", ""
        except OSError as error:
            return _failed(error.errno or 0)

    def _is_reply(self, data: bytes) -> bool:
        if self.flow.protocol == UDP:
            return True
        if self.token not in data:
            return False
        # Raw sockets of IPv6 get no IP header.
        at = 0 if self.flow.to.version == 6 else 4 * (data[0] & 0x0F)
        return data[at] == ECHO_REPLY[self.flow.protocol]


def _failed(code: int) -> tuple[str, str]:
    return ("refused" if code == errno.ECONNREFUSED else "unreachable"), os.strerror(code)


def random_ident() -> int:
    """An identifier of echo requests, or a port that is nobody's."""
    return 49152 + int.from_bytes(os.urandom(2)) % 16384  # of the dynamic ports (RFC 6335)


def find_source(to: IPAddress) -> IPAddress | None:
    """The address that the kernel chooses for packets to there; None where it sends none."""
    with closing(socket.socket(FAMILY[to.version], socket.SOCK_DGRAM)) as made:
        if made.connect_ex((str(to), 9)):
            return None
        return ip_address(made.getsockname()[0].partition("%")[0])
