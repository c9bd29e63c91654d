"""Thousands of peers that answer probes, and probe: one socket that has all their addresses.

To the node under test they are VTEPs: what it sends is encapsulated by its kernel, and what they
send is decapsulated there.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address
from types import TracebackType

from daemon.probes.protocol import HEADERS, InvalidPacket, Packet, parse, render
from daemon.routing.backends.vxlan import vtep_mac
from tests.bench.routing.fleet import Listed
from tests.bench.world import Host
from tests.pytest_netns import Namespace

RANGE = "198.18.0.0/15"
_VXLAN_PORT, _PORT = 8472, 8473
_VXLAN = struct.pack("!II", 0x08 << 24, 1 << 8)  # RFC 7348: the flag I, VNI 1
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_ETHERNET = struct.Struct("!6s6sH")
_PKTINFO = struct.Struct("=I4s4s")  # struct in_pktinfo
_IP_PKTINFO = 8
_INNER = len(_VXLAN) + _ETHERNET.size


class Crowd:
    """Peers that live for as long as the context. rate: probes a second from all of them."""

    def __init__(self, host: Host, node: Listed, peers: Sequence[Listed], rate: float) -> None:
        self.answered = self.heard = 0
        self._node, self._peers, self._rate = node, peers, rate
        self._ns: Namespace = host.node.underlay.ns
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Crowd:
        self._ns.run(["ip", "route", "add", "local", RANGE, "dev", "lo"])
        self._socket = self._ns.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._socket.bind(("0.0.0.0", _VXLAN_PORT))  # noqa: S104 - thousands of addresses
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping = True
        self._thread.join()
        self._socket.close()
        self._ns.run(["ip", "route", "del", "local", RANGE, "dev", "lo"])

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        number, due = 0, time.monotonic()
        while not self._stopping:
            if poll.poll(10):
                self._answer(*self._socket.recvmsg(65535, 256)[:2])
            while due <= time.monotonic():
                self._probe(self._peers[number * 997 % len(self._peers)], number)
                number, due = number + 1, due + 1 / self._rate

    def _answer(self, frame: bytes, extra: list[tuple[int, int, bytes]]) -> None:
        inner = frame[_INNER:]
        source, target = inner[12:16], inner[16:20]
        try:
            packet = parse(inner[HEADERS[4] :], 4)
        except InvalidPacket:
            return
        if packet.is_answer:
            self.heard += 1
            return
        self.answered += 1
        mine = _PKTINFO.unpack(extra[0][2])[2]
        answer = render(packet._replace(is_answer=True, received=0), 4)
        self._send(mine, target, source, answer)

    def _probe(self, peer: Listed, number: int) -> None:
        source = peer.prefix.network_address.packed
        payload = render(Packet(False, 1450, number), 4)
        address = ip_address(peer.address).packed
        self._send(address, source, self._node.prefix.network_address.packed, payload)

    def _send(self, address: bytes, source: bytes, target: bytes, payload: bytes) -> None:
        """A datagram of the peer with that VTEP, encapsulated."""
        udp = _UDP.pack(_PORT, _PORT, _UDP.size + len(payload), 0) + payload
        head = [0x45, 0, _IP.size + len(udp), 0, 0x4000, 64, socket.IPPROTO_UDP, 0, source, target]
        head[7] = _checksum(_IP.pack(*head))
        ethernet = _ETHERNET.pack(
            _mac(vtep_mac(ip_address(self._node.address))),
            _mac(vtep_mac(ip_address(address))),
            0x0800,
        )
        info = (socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, address, bytes(4)))
        frame = _VXLAN + ethernet + _IP.pack(*head) + udp
        self._socket.sendmsg([frame], [info], 0, (self._node.address, _VXLAN_PORT))


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(header: bytes) -> int:
    """RFC 1071."""
    total = int(sum(struct.unpack(f"!{len(header) // 2}H", header)))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF
