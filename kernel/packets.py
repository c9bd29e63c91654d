"""What is in a frame: Ethernet, ARP, IP, TCP, UDP, ICMP, and what VXLAN carries; pure.

Frames come from hostile networks: what is cut off or malformed is left out, never an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from kernel.model import IPAddress

TCP, UDP, SCTP, ICMP, ICMP6 = 6, 17, 132, 1, 58
PROTOCOLS = {TCP: "tcp", UDP: "udp", SCTP: "sctp", ICMP: "icmp", ICMP6: "icmp6"}
VXLAN_PORT = 8472
"""Of packets whose configuration is not known: the kernel's default (vxlan_core.c, vxlan_port)."""
_IPV4, _ARP, _IPV6, _VLAN = 0x0800, 0x0806, 0x86DD, frozenset({0x8100, 0x88A8})
_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop, routing, destination options (RFC 8200)
_FRAGMENT = 44
_DEPTH_MAX = 8
_ERRORS = {ICMP: frozenset({3, 11, 12}), ICMP6: frozenset({1, 2, 3, 4})}
_FLAGS = ((0x02, "S"), (0x10, "."), (0x01, "F"), (0x04, "R"), (0x08, "P"))
ICMP_OF = {4: ICMP, 6: ICMP6}
"""The protocol of echoes, by the version of IP."""
ECHO_REQUEST, ECHO_REPLY = {ICMP: 8, ICMP6: 128}, {ICMP: 0, ICMP6: 129}
"""Types of its messages (RFC 792, RFC 4443)."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One IP packet or ARP message. protocol: of IP, 0 for ARP.

    ports: of TCP, UDP and SCTP; kind: type and code of ICMP. sequence, acknowledged, flags: of TCP.
    ident: of an ICMP echo. mtu: of an ICMP error that names one. inner: what VXLAN carries; quoted:
    the packet that an ICMP error is about. length: of the IP packet in bytes.
    """

    name: str
    source: IPAddress
    to: IPAddress
    protocol: int = 0
    ports: tuple[int, int] | None = None
    kind: tuple[int, int] | None = None
    sequence: int = 0
    acknowledged: int = 0
    flags: int = 0
    ident: int = 0
    mtu: int = 0
    vni: int = 0
    inner: Packet | None = None
    quoted: Packet | None = None
    payload: bytes = b""
    length: int = 0

    @property
    def layers(self) -> Iterator[Packet]:
        """The packet, and those that it carries."""
        yield self
        if self.inner:
            yield from self.inner.layers

    @property
    def is_error(self) -> bool:
        """Whether it is an ICMP message about another packet."""
        return self.kind is not None and self.kind[0] in _ERRORS[self.protocol]

    @property
    def is_request(self) -> bool:
        """Whether it is an echo request."""
        return self.kind is not None and self.kind[0] == ECHO_REQUEST[self.protocol]

    @property
    def is_reply(self) -> bool:
        """Whether it is an echo reply."""
        return self.kind is not None and self.kind[0] == ECHO_REPLY[self.protocol]


def decode(frame: bytes, vxlan_port: int = VXLAN_PORT) -> Packet | None:
    """The packet in an Ethernet frame; None for anything but IP and ARP, and what is too short."""
    return _decode_frame(frame, vxlan_port, 0)


def _decode_frame(frame: bytes, vxlan_port: int, depth: int) -> Packet | None:
    at = 12
    for _ in range(3):
        kind = int.from_bytes(frame[at : at + 2])
        if kind not in _VLAN:
            break
        at += 4
    body = frame[at + 2 :]
    if kind == _ARP:
        return _decode_arp(body)
    if kind in (_IPV4, _IPV6):
        return decode_ip(body, vxlan_port, depth)
    return None


def _decode_arp(body: bytes) -> Packet | None:
    # RFC 826, for Ethernet and IPv4.
    if len(body) < 28 or body[:6] != b"\0\1\x08\0\6\4":
        return None
    name = "arp request" if int.from_bytes(body[6:8]) == 1 else "arp reply"
    return Packet(name, ip_address(body[14:18]), ip_address(body[24:28]), length=28)


def decode_ip(body: bytes, vxlan_port: int = VXLAN_PORT, depth: int = 0) -> Packet | None:
    """The packet that begins there."""
    version = body[0] >> 4 if body else 0
    if version == 4:
        return _decode_ipv4(body, vxlan_port, depth)
    return _decode_ipv6(body, vxlan_port, depth) if version == 6 else None


def _decode_ipv4(body: bytes, vxlan_port: int, depth: int) -> Packet | None:
    head = 4 * (body[0] & 0x0F)
    if len(body) < max(head, 20) or head < 20:
        return None
    total, fragment = struct.unpack_from("!2xH2xH", body)
    ends = ip_address(body[12:16]), ip_address(body[16:20])
    rest = body[head:total] if total >= head else body[head:]
    first = not fragment & 0x1FFF
    return _decode_transport(body[9], ends, rest if first else b"", total, vxlan_port, depth)


def _decode_ipv6(body: bytes, vxlan_port: int, depth: int) -> Packet | None:
    if len(body) < 40:
        return None
    length, protocol = struct.unpack_from("!4xHB", body)
    ends = ip_address(body[8:24]), ip_address(body[24:40])
    rest = body[40 : 40 + length] if length else body[40:]
    for _ in range(_DEPTH_MAX):
        if protocol in _EXTENSIONS and len(rest) >= 8:
            protocol, rest = rest[0], rest[8 * (rest[1] + 1) :]
        elif protocol == _FRAGMENT and len(rest) >= 8:
            later = int.from_bytes(rest[2:4]) & 0xFFF8
            protocol, rest = rest[0], b"" if later else rest[8:]
        else:
            break
    return _decode_transport(protocol, ends, rest, length + 40, vxlan_port, depth)


def _decode_transport(
    protocol: int,
    ends: tuple[IPAddress, IPAddress],
    data: bytes,
    length: int,
    vxlan_port: int,
    depth: int,
) -> Packet:
    name = PROTOCOLS.get(protocol, f"protocol {protocol}")
    if protocol == TCP and len(data) >= 8:
        # An ICMP error may quote no more than eight bytes of it (RFC 792).
        data = data.ljust(14, b"\0")
        ports, sequence, acknowledged = _ports(data), *struct.unpack_from("!4xII", data)
        return Packet(
            name, *ends, protocol, ports, sequence=sequence, acknowledged=acknowledged,
            flags=data[13], payload=data[4 * (data[12] >> 4) :], length=length,
        )  # fmt: skip
    if protocol == UDP and len(data) >= 8:
        ports, inner, vni = _ports(data), None, 0
        if ports[1] == vxlan_port and len(data) >= 16 and data[8] & 0x08 and depth < _DEPTH_MAX:
            vni = int.from_bytes(data[12:15])
            inner = _decode_frame(data[16:], vxlan_port, depth + 1)
        return Packet(
            name, *ends, protocol, ports, vni=vni, inner=inner, payload=data[8:], length=length
        )
    if protocol == SCTP and len(data) >= 8:
        return Packet(name, *ends, protocol, _ports(data), length=length)
    if protocol in (ICMP, ICMP6) and len(data) >= 8:
        return _decode_icmp(Packet(name, *ends, protocol, length=length), data, vxlan_port, depth)
    return Packet(name, *ends, protocol, length=length)


def _decode_icmp(head: Packet, data: bytes, vxlan_port: int, depth: int) -> Packet:
    kind, ident, quoted, mtu = (data[0], data[1]), 0, None, 0
    if data[0] in _ERRORS[head.protocol]:
        quoted = decode_ip(data[8:], vxlan_port, depth + 1) if depth < _DEPTH_MAX else None
        if (head.protocol, data[0]) == (ICMP, 3) and data[1] == 4:
            mtu = int.from_bytes(data[6:8])
        elif (head.protocol, data[0]) == (ICMP6, 2):
            mtu = int.from_bytes(data[4:8])
    elif data[0] in (ECHO_REQUEST[head.protocol], ECHO_REPLY[head.protocol]):
        ident = int.from_bytes(data[4:6])
    return Packet(
        head.name, head.source, head.to, head.protocol, kind=kind, ident=ident, quoted=quoted,
        mtu=mtu, payload=data[8:], length=head.length,
    )  # fmt: skip


def _ports(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[:2]), int.from_bytes(data[2:4])


def describe_icmp(packet: Packet) -> str:
    """What an ICMP message says."""
    if packet.is_request or packet.is_reply:
        return "echo request" if packet.is_request else "echo reply"
    if packet.mtu:
        return f"packet too big, MTU {packet.mtu}"
    texts = {
        (ICMP, 3): "unreachable", (ICMP, 11): "time exceeded",
        (ICMP6, 1): "unreachable", (ICMP6, 3): "time exceeded",
        (ICMP6, 133): "router solicitation", (ICMP6, 134): "router advertisement",
        (ICMP6, 135): "neighbour solicitation", (ICMP6, 136): "neighbour advertisement",
    }  # fmt: skip
    kind, code = packet.kind or (0, 0)
    known = texts.get((packet.protocol, kind), f"type {kind}")
    prohibited = packet.protocol == ICMP and kind == 3 and code in (9, 10, 13)
    return "administratively prohibited" if prohibited else known


def describe_flags(packet: Packet) -> str:
    """TCP's flags as tcpdump shows them."""
    return "".join(letter for bit, letter in _FLAGS if packet.flags & bit) or "none"
