"""Frames that are made are those that the decoder reads, with checksums that hold."""

from ipaddress import ip_address

import pytest

from kernel.frames import SYN, checksum, echo_request, ethernet_frame, tcp_segment, udp_datagram
from kernel.model import IPAddress
from kernel.packets import ICMP, ICMP6, TCP, UDP, decode

ENDS = {
    4: (ip_address("203.0.113.1"), ip_address("10.0.0.2")),
    6: (ip_address("3fff::1"), ip_address("fd00::2")),
}


def sums_up(frame: bytes, ends: tuple[IPAddress, IPAddress], protocol: int) -> bool:
    """Whether the receiver takes it: all 16-bit words with the checksum sum up to nothing."""
    head = 20 if ends[0].version == 4 else 40
    transport = frame[14 + head :]
    pseudo = b"" if protocol == ICMP else ends[0].packed + ends[1].packed
    pseudo += b"" if protocol == ICMP else len(transport).to_bytes(4) + protocol.to_bytes(4)
    is_sound = head == 40 or checksum(frame[14:34]) == 0
    return is_sound and checksum(pseudo + transport) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_all_kinds(version: int) -> None:
    ends, ports = ENDS[version], (50000, 80)
    icmp = {4: ICMP, 6: ICMP6}[version]
    for protocol, transport in {
        TCP: tcp_segment(ports, 7, SYN),
        UDP: udp_datagram(ports, b"odd"),
        icmp: echo_request(version, 50000, 1, b"token"),
    }.items():
        frame = ethernet_frame("02:00:00:00:00:07", *ends, protocol, transport)
        found = decode(frame)
        assert found is not None
        assert (frame[:6].hex(), found.source, found.to) == ("020000000007", *ends)
        assert sums_up(frame, ends, protocol)
        if protocol == icmp:
            assert (found.is_request, found.ident, found.payload) == (True, 50000, b"token")
        else:
            assert found.ports == ports
