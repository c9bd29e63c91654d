"""What takes packets at a link is read from a real kernel; a frame comes in by one."""

import os
import struct
from ipaddress import ip_address

from kernel.frames import echo_request, ethernet_frame
from kernel.inject import inject, load_passing
from kernel.link_hooks import describe_hooks
from kernel.netlink.codec import Message, attribute, nested, u32
from kernel.netlink.socket import Netlink
from kernel.packet_socket import PacketSocket
from kernel.packets import ICMP, decode
from kernel.read import read_link
from tests.pytest_netns.plugin import MakeNamespace

RTM_SETLINK, IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS, SKB_MODE = 19, 43, 1, 3, 2
PAIR = "link add pw0 type veth peer name eth0\nlink set eth0 up\nlink set pw0 up\n"


def attach_xdp(nl: Netlink, index: int, program: int) -> None:
    body = nested(IFLA_XDP, attribute(IFLA_XDP_FD, struct.pack("=i", program))
                  + u32(IFLA_XDP_FLAGS, SKB_MODE))  # fmt: skip
    nl.run([Message(RTM_SETLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + body, "attach")])


def test_queues_and_programs_of_others(netns: MakeNamespace) -> None:
    ns = netns("hooks")
    ns.ip_batch(PAIR)

    def read() -> str:
        with Netlink() as nl:
            link = read_link(nl, "pw0")
            assert link
            return describe_hooks(nl, link)

    def attach() -> None:
        program = load_passing()
        with Netlink() as nl:
            link = read_link(nl, "pw0")
            assert link
            attach_xdp(nl, link.index, program)
        os.close(program)

    assert ns.call(read) == ""
    ns.run(["tc", "qdisc", "replace", "dev", "pw0", "root", "blackhole"])
    ns.run(["tc", "qdisc", "add", "dev", "pw0", "clsact"])
    assert ns.call(read) == "qdisc blackhole and qdisc clsact of pw0 may drop packets"
    ns.call(attach)
    assert ns.call(read).startswith("XDP program ")


def test_a_frame_comes_in_by_a_link(netns: MakeNamespace) -> None:
    ns = netns("inject")
    ns.ip_batch(PAIR)
    ends = ip_address("203.0.113.1"), ip_address("192.0.2.1")

    def receive() -> list[tuple[bool, bytes]]:
        with Netlink() as nl, PacketSocket("pw0") as sock:
            link = read_link(nl, "pw0")
            assert link
            request = echo_request(4, 7, 1, b"token")
            assert link.mac
            inject("pw0", link.index, ethernet_frame(link.mac, *ends, ICMP, request))
            frames = [(frame.outgoing, decode(frame.data)) for frame in sock.read()]
            return [(out, p.payload) for out, p in frames if p and p.source == ends[0]]

    assert ns.call(receive) == [(False, b"token")]
