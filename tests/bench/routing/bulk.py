"""The physical floor of thousands of entries: messages that are ready, sent as fast as they go."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence

from kernel.diff import Key
from kernel.model import Entry, FdbEntry, Neighbour
from kernel.netlink import neighbours, routes
from kernel.netlink.codec import NLM_F_ACK, NLMSG_ERROR, Message, pack, unpack
from kernel.netlink.socket import Netlink
from kernel.routes import read_entries
from tests.bench.routing.fleet import DEVICE
from tests.bench.world import Host

PER_SEND = 512
"""Messages at once; with fewer the floor is higher, with more it is not lower."""
_BUFFER_BYTES = 8 << 20


def make_device(host: Host) -> None:
    """A VXLAN device like podwire's, by hand."""
    host.node.ns.ip_batch(
        f"link add {DEVICE} type vxlan id 1 dev eth0 local {host.node.address(4)} dstport 8472"
        f" nolearning noudpcsum\nlink set {DEVICE} mtu 1450 up\n"
    )


def measure_floor(host: Host, entries: Sequence[Entry]) -> float:
    """Seconds from the first message to the answer to the last."""
    make_device(host)
    return host.call(lambda: _send(entries))


def count_entries(host: Host) -> dict[Key, Entry]:
    """What the node's kernel has."""

    def read() -> dict[Key, Entry]:
        with Netlink() as nl:
            return read_entries(nl, DEVICE)

    return host.call(read)


def _send(entries: Sequence[Entry]) -> float:
    index = socket.if_nametoindex(DEVICE)
    messages = [_encode(entry, index) for entry in entries]
    sends = [_pack_all(messages[at : at + PER_SEND]) for at in range(0, len(messages), PER_SEND)]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as nl:
        nl.setsockopt(socket.SOL_SOCKET, 32, _BUFFER_BYTES)  # SO_SNDBUFFORCE
        nl.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_BYTES)  # SO_RCVBUFFORCE
        nl.bind((0, 0))
        began = time.perf_counter()
        for data in sends:
            nl.send(data)
            _expect_done(nl.recv(1 << 16))
        return time.perf_counter() - began


def _encode(entry: Entry, index: int) -> Message:
    if isinstance(entry, FdbEntry):
        return neighbours.add_fdb(entry, index)
    if isinstance(entry, Neighbour):
        return neighbours.add_neighbour(entry, index)
    return routes.add_route(entry, index, exclusive=True)


def _pack_all(messages: Sequence[Message]) -> bytes:
    last = len(messages) - 1
    return b"".join(pack(m, i, NLM_F_ACK if i == last else 0) for i, m in enumerate(messages))


def _expect_done(answer: bytes) -> None:
    for _sequence, _port, message in unpack(answer):
        code = -struct.unpack_from("=i", message.body)[0]
        if message.type != NLMSG_ERROR or code:
            raise OSError(code, "the floor's message was refused")
