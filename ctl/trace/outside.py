"""Packets of a client beyond the node: they come in by the link that leads to the client."""

from __future__ import annotations

from dataclasses import dataclass

from ctl.trace.sender import Flow, Sender, random_ident
from kernel.errors import KernelError
from kernel.frames import RST, SYN, echo_request, ethernet_frame, tcp_segment, udp_datagram
from kernel.inject import FRAME_MAX, inject
from kernel.model import IPAddress
from kernel.packets import TCP, UDP, Packet, describe_icmp

_SEQUENCE = 0x70770000
_PORT_UNREACHABLE = frozenset({(3, 3), (1, 4)})  # RFC 792, RFC 4443
_ETHERNET_BYTES = 14


@dataclass(frozen=True, slots=True)
class Entry:
    """A client, the link by which its packets come in, and that link's MAC."""

    client: IPAddress
    link: str
    index: int
    mac: str


class OutsideSender(Sender):
    """Passes packets to a link as if they were received from the wire.

    The answer leaves by the same link: nobody receives it here, so it is reached when it is seen
    there.
    """

    def __init__(self, flow: Flow, entry: Entry) -> None:
        super().__init__(flow, entry.client, random_ident())
        self._entry, self._seen = entry, ("", "")
        self.sequence = _SEQUENCE + self.ident if flow.protocol == TCP else -1

    def send(self) -> str:
        """Pass the packet to the link."""
        if self.flow.size + _ETHERNET_BYTES > FRAME_MAX:
            return f"frames of more than {FRAME_MAX} bytes cannot be passed to a link"
        return self._pass(self._transport())

    def poll(self) -> tuple[str, str]:
        """The answer that has left."""
        return self._seen

    def close(self) -> None:
        """End the connection, as a client does that wants none."""
        if self.flow.protocol == TCP and self._seen[0] == "answered":
            self._pass(tcp_segment((self.ident, self.flow.port), self.sequence + 1, RST))

    def passes(self, link: str, packet: Packet, direction: str, *, outgoing: bool) -> bool:
        """Requests that come in by the link, and answers that leave by it."""
        if link != self._entry.link or outgoing == (direction == "sent"):
            return False
        if direction == "answer" and not self._seen[0]:
            refused = self.flow.protocol == TCP and packet.flags & RST
            self._seen = ("refused" if refused else "answered"), ""
        elif direction == "error" and not self._seen[0]:
            refused = packet.kind in _PORT_UNREACHABLE
            result = "refused" if refused else "unreachable"
            self._seen = result, f"{packet.source} answers: {describe_icmp(packet)}"
        return True

    def _transport(self) -> bytes:
        flow, ports = self.flow, (self.ident, self.flow.port)
        if flow.protocol == TCP:
            return tcp_segment(ports, self.sequence, SYN)
        if flow.protocol == UDP:
            return udp_datagram(ports, self.body())
        return echo_request(flow.to.version, self.ident, 1, self.body())

    def _pass(self, transport: bytes) -> str:
        flow, entry = self.flow, self._entry
        frame = ethernet_frame(entry.mac, entry.client, flow.to, flow.protocol, transport)
        try:
            inject(entry.link, entry.index, frame)
        except KernelError as error:
            return str(error)
        return ""
