"""Makes frames: Ethernet, IP, and a TCP segment, UDP datagram or echo request in it; pure."""

from __future__ import annotations

import struct

from kernel.model import IPAddress
from kernel.packets import ECHO_REQUEST, ICMP, ICMP6, ICMP_OF, TCP

_ETHERTYPE = {4: 0x0800, 6: 0x86DD}
_TTL = 64
_SOURCE_MAC = bytes.fromhex("02000000feed")  # locally administered
_WINDOW = 65535
SYN, RST = 0x02, 0x04


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo_request(version: int, ident: int, number: int, body: bytes) -> bytes:
    """An echo request (RFC 792, RFC 4443) as a raw socket sends it.

    ICMPv6's checksum is left to the kernel, which does not fill ICMP's in (raw(7)).
    """
    kind = ECHO_REQUEST[ICMP_OF[version]]
    packet = struct.pack("!BBHHH", kind, 0, 0, ident & 0xFFFF, number & 0xFFFF) + body
    if version == 6:
        return packet
    return packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]


def tcp_segment(ports: tuple[int, int], sequence: int, flags: int) -> bytes:
    """A segment without data (RFC 9293), its checksum left out. ports: source and destination."""
    return struct.pack("!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, 0, 5 << 4, flags, _WINDOW, 0, 0)


def udp_datagram(ports: tuple[int, int], body: bytes) -> bytes:
    """A datagram (RFC 768), its checksum left out."""
    return struct.pack("!HHHH", *ports, 8 + len(body), 0) + body


def ethernet_frame(
    mac: str, source: IPAddress, to: IPAddress, protocol: int, transport: bytes
) -> bytes:
    """A frame to the MAC with an IP packet that must not be fragmented, all checksums filled in.

    transport: a segment, datagram or message from above; protocol: its number in IP.
    """
    at = {TCP: 16, ICMP: 2, ICMP6: 2}.get(protocol, 6)
    head, ends = transport[:at], source.packed + to.packed
    body = transport[at + 2 :]
    pseudo = b"" if protocol == ICMP else ends + struct.pack("!II", len(transport), protocol)
    total = checksum(pseudo + head + b"\0\0" + body)
    # Zero means that a datagram has none (RFC 768).
    transport = head + struct.pack("!H", total or 0xFFFF) + body
    ethernet = bytes.fromhex(mac.replace(":", "")) + _SOURCE_MAC
    ethernet += struct.pack("!H", _ETHERTYPE[to.version])
    if to.version == 6:
        ip = struct.pack("!IHBB", 6 << 28, len(transport), protocol, _TTL) + ends
        return ethernet + ip + transport
    length, unfragmented = 20 + len(transport), 0x4000
    ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 1, unfragmented, _TTL, protocol, 0) + ends
    return ethernet + ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + transport
