"""Frames of a hostile pod, byte by byte."""

import socket
import struct
from ipaddress import IPv6Address, ip_address

from tests.pytest_netns import Namespace

IPV4, ARP, IPV6, VLAN = 0x0800, 0x0806, 0x86DD, 0x8100
UDP, ICMPV6 = 17, 58
ROUTER_ADVERT, SOLICIT, ADVERT, MLD_REPORT = 134, 135, 136, 143
MLD_QUERY, MLD_ROUTER = 130, 151
BROADCAST = "ff:ff:ff:ff:ff:ff"
PORT = 4242


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def send(pod: Namespace, frames: list[bytes]) -> None:
    """Send frames from the pod's eth0, which needs NET_RAW alone."""

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for frame in frames:
                raw.send(frame)

    pod.call(work)


def ethernet(to: str, source: str, kind: int, payload: bytes, tags: int = 0) -> bytes:
    """A frame; tags: how many priority tags (VLAN 0) it has."""
    tag = struct.pack("!HH", VLAN, 0)
    return mac(to) + mac(source) + tag * tags + struct.pack("!H", kind) + payload


def _checksum(data: bytes) -> int:
    words = struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + bytes(len(data) % 2))
    total = sum(map(int, words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _ipv6(source: str, to: str, protocol: int, payload: bytes, checksum_at: int) -> bytes:
    ends = IPv6Address(source).packed + IPv6Address(to).packed
    pseudo = ends + struct.pack("!II", len(payload), protocol)
    value = struct.pack("!H", _checksum(pseudo + payload))
    payload = payload[:checksum_at] + value + payload[checksum_at + 2 :]
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 255) + ends + payload


def udp(source: str, to: str) -> tuple[int, bytes]:
    """The type and payload of a frame with a datagram to PORT."""
    datagram = struct.pack("!HHHH", PORT, PORT, 8 + 6, 0) + b"packet"
    if ip_address(source).version == 6:
        return IPV6, _ipv6(source, to, UDP, datagram, 6)
    ends = ip_address(source).packed + ip_address(to).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, UDP, 0)
    value = struct.pack("!H", _checksum(head + ends))
    return IPV4, head[:10] + value + ends + datagram


def arp(sender_mac: str, sender: str, target: str, operation: int = 2) -> tuple[int, bytes]:
    """An ARP reply (operation 1: a request)."""
    head = struct.pack("!HHBBH", 1, IPV4, 6, 4, operation)
    ends = mac(sender_mac) + ip_address(sender).packed + bytes(6) + ip_address(target).packed
    return ARP, head + ends


def neighbour(
    kind: int, source: str, to: str, target: str, link: str, *, hop_by_hop: bool = False
) -> tuple[int, bytes]:
    """A neighbour solicitation or advertisement that names a link-layer address."""
    option = struct.pack("!BB", 2 if kind == ADVERT else 1, 1) + mac(link)
    flags = 0x2 << 28 if kind == ADVERT else 0  # override
    body = struct.pack("!BBHI", kind, 0, 0, flags) + IPv6Address(target).packed
    body += b"" if source == "::" else option
    whole = _ipv6(source, to, ICMPV6, body, 2)
    if not hop_by_hop:
        return IPV6, whole
    header = struct.pack("!BB", ICMPV6, 0) + bytes((1, 4, 0, 0, 0, 0))
    length = struct.pack("!HB", len(body) + len(header), 0)
    return IPV6, whole[:4] + length + whole[7:40] + header + whole[40:]


def router(source: str, link: str) -> tuple[int, bytes]:
    """A router advertisement to all nodes."""
    body = struct.pack("!BBHBBHII", ROUTER_ADVERT, 0, 0, 64, 0, 1800, 0, 0)
    body += struct.pack("!BB", 1, 1) + mac(link)
    return IPV6, _ipv6(source, "ff02::1", ICMPV6, body, 2)


def report(source: str, group: str) -> tuple[int, bytes]:
    """A multicast listener report (MLDv2) of one group."""
    record = struct.pack("!BBH", 4, 0, 0) + IPv6Address(group).packed
    body = struct.pack("!BBHHH", MLD_REPORT, 0, 0, 0, 1) + record
    return IPV6, _ipv6(source, "ff02::16", ICMPV6, body, 2)


def fragments(whole: bytes, first: int) -> list[tuple[int, bytes]]:
    """An IPv6 packet in two; first: bytes of its payload in the first one."""
    found = []
    for offset, part in ((0, whole[40 : 40 + first]), (first, whole[40 + first :])):
        header = struct.pack("!BBHI", whole[6], 0, offset | (not offset), 7)
        head = whole[:4] + struct.pack("!HBB", len(header) + len(part), 44, whole[7])
        found.append((IPV6, head + whole[8:40] + header + part))
    return found


def multicast_query(source: str, kind: int, group: str = "::") -> tuple[int, bytes]:
    """A query for members (MLDv1), or an advertisement of a multicast router (RFC 4286)."""
    body = struct.pack("!BBHHH", kind, 0, 0, 1000, 0) + IPv6Address(group).packed
    to = "ff02::1" if kind == MLD_QUERY else "ff02::6a"
    whole = _ipv6(source, to, ICMPV6, body if kind == MLD_QUERY else body[:8], 2)
    option = struct.pack("!BB", ICMPV6, 0) + bytes((5, 2, 0, 0, 1, 0))  # router alert (RFC 2711)
    length = struct.pack("!HBB", len(whole) - 40 + len(option), 0, 1)
    return IPV6, whole[:4] + length + whole[8:40] + option + whole[40:]


def multicast_query4(source: str) -> tuple[int, bytes]:
    """A query for members (IGMPv2)."""
    body = struct.pack("!BBHI", 0x11, 100, 0, 0)
    body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
    return IPV4, _ipv4(source, "224.0.0.1", 2, body)


def multicast_router4(source: str) -> tuple[int, bytes]:
    """PIM's hello (RFC 7761)."""
    body = struct.pack("!BBH", 0x20, 0, 0)
    body = body[:2] + struct.pack("!H", _checksum(body))
    return IPV4, _ipv4(source, "224.0.0.13", 103, body)


def membership4(source: str, group: str) -> tuple[int, bytes]:
    """A report of one group (IGMPv2)."""
    body = struct.pack("!BBH", 0x16, 0, 0) + ip_address(group).packed
    body = body[:2] + struct.pack("!H", _checksum(body)) + body[4:]
    return IPV4, _ipv4(source, group, 2, body)


def _ipv4(source: str, to: str, protocol: int, payload: bytes) -> bytes:
    """A packet with the router alert option (RFC 2113), which IGMP needs."""
    ends = ip_address(source).packed + ip_address(to).packed
    size = 24 + len(payload)
    head = struct.pack("!BBHHHBBH", 0x46, 0, size, 0, 0, 1, protocol, 0) + ends
    head += bytes((0x94, 4, 0, 0))
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload
