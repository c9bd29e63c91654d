"""The sockets of the probes: bounded, whatever is sent to them; and errors in their queues."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.probes.diagnosis import Rejection
from daemon.probes.protocol import Path
from daemon.probes.schedule import Target
from daemon.probes.sockets import (
    RECEIVE_MAX,
    Datagram,
    DeliveryError,
    Sockets,
    read_error,
    read_send_error,
)
from tests.unit.ports import free_port

OWN, TARGET, ROUTER = "192.0.2.1", "192.0.2.2", "192.0.2.254"


def report(
    code: int, origin: int, kind: int, subkind: int, by: str = TARGET, info: int = 0
) -> Rejection | None:
    error = struct.pack("=IBBBxII", code, origin, kind, subkind, info, 0)
    address = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(by))
    return read_error([(socket.IPPROTO_IP, 11, error + address)], OWN, TARGET)


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (report(errno.ECONNREFUSED, 2, 3, 3), "port", "refused"),
        (report(errno.ECONNREFUSED, 2, 3, 3, ROUTER), "forbidden", "firewall"),
        (report(errno.EHOSTUNREACH, 2, 3, 13, ROUTER), "forbidden", "firewall"),
        (report(errno.EHOSTUNREACH, 2, 3, 1, ROUTER), "unreachable", "no route to host"),
        (report(errno.EHOSTUNREACH, 2, 3, 1, OWN), "unreachable", "no answer to ARP"),
        (report(errno.EMSGSIZE, 2, 3, 4, ROUTER, 1400), "size", "too long"),
        (report(errno.EMSGSIZE, 1, 0, 0, OWN, 1400), "size", "too long"),
        (read_send_error(OSError(errno.EMSGSIZE, "")), "size", "too long"),
        (read_send_error(OSError(errno.EPERM, "")), "forbidden", "own firewall"),
        (read_send_error(OSError(errno.ENETUNREACH, "")), "unreachable", "on this node"),
    ],
)  # fmt: skip
def test_words(found: Rejection | None, kind: str, words: str) -> None:
    assert found is not None
    assert (found.kind, words in found.text) == (kind, True), found


def test_who_and_how_much() -> None:
    found = report(errno.EMSGSIZE, 2, 3, 4, ROUTER, 1400)
    assert found is not None
    assert (found.by, found.mtu) == (ROUTER, 1400)


def test_ipv6() -> None:
    error = struct.pack("=IBBBxII", errno.ECONNREFUSED, 3, 1, 4, 0, 0)
    address = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, socket.inet_pton(10, "2001:db8::2"), 0)
    extra = [(socket.IPPROTO_IPV6, 25, error + address)]
    found = read_error(extra, "2001:db8::1", "2001:db8::2")
    assert found == Rejection("port", "Connection refused", "2001:db8::2")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 41]), st.sampled_from([11, 25, 35]), st.binary(max_size=60)
        ),
        max_size=4,
    )
)
def test_any_bytes_are_a_rejection_or_nothing(extra: list[tuple[int, int, bytes]]) -> None:
    found = read_error(extra, OWN, TARGET)
    assert found is None or found.text


@pytest.mark.parametrize(("kind", "by"), [("port", TARGET), ("forbidden", ROUTER)])
def test_a_closed_port_is_the_targets_own_report(kind: str, by: str) -> None:
    found = report(errno.ECONNREFUSED, 2, 3, 3, by)
    assert found is not None
    assert (found.kind, found.by) == (kind, by)


LOOPBACK = {4: Target(Path.UNDERLAY4, "127.0.0.1"), 6: Target(Path.UNDERLAY6, "::1")}


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets(free_port(socket.SOCK_DGRAM, "::"))
    made.update(LOOPBACK.values())
    assert made.fault == ""
    yield made
    made.close()


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as made:
        made.bind(("127.0.0.1", 0))
        yield made


def receive(sockets: Sockets) -> list[Datagram | DeliveryError]:
    """What is there; the payloads as bytes."""
    return [
        item._replace(payload=memoryview(bytes(item.payload)))
        if isinstance(item, Datagram)
        else item
        for item in sockets.receive(sockets.wait(10.0))
    ]


def send(sender: socket.socket, to: Sockets, count: int, payload: bytes = b"x") -> None:
    for _ in range(count):  # over the loopback a datagram is queued when sending returns
        sender.sendto(payload, ("127.0.0.1", to._port))


@pytest.mark.parametrize("version", [4, 6])
def test_a_datagram_is_received_with_its_addresses_and_time(version: int) -> None:
    own = LOOPBACK[version]
    with closing(Sockets(free_port(socket.SOCK_DGRAM, "::"))) as sockets:
        sockets.update([own])
        assert sockets.own == {own.path: own}
        before = time.monotonic()
        assert sockets.send(own, own.address, b"hello") is None  # to itself
        sent = time.monotonic()
        time.sleep(1)
        [datagram] = receive(sockets)
        assert isinstance(datagram, Datagram)
        assert (datagram.own, datagram.origin, datagram.port) == (own, own, sockets._port)
        assert bytes(datagram.payload) == b"hello"
        assert before - 0.5 < datagram.received < sent + 0.5


def test_an_iteration_reads_a_bounded_number(sockets: Sockets, sender: socket.socket) -> None:
    send(sender, sockets, RECEIVE_MAX - 1)
    assert len(receive(sockets)) == RECEIVE_MAX - 1
    assert sockets.overloaded == []
    send(sender, sockets, RECEIVE_MAX + 5)
    assert len(receive(sockets)) == RECEIVE_MAX
    assert sockets.overloaded == [LOOPBACK[4]]
    assert len(receive(sockets)) == 5
    assert sockets.overloaded == []
    assert sockets.dropped == 0


def test_the_queue_is_bounded_and_its_losses_are_counted(
    sockets: Sockets, sender: socket.socket
) -> None:
    sent = 20_000
    send(sender, sockets, sent)
    received = 0
    is_first = True
    while sockets.wait(0.0):
        received += len(receive(sockets))
        if is_first:
            assert sockets.overloaded == [LOOPBACK[4]]
            is_first = False
    assert received < sent
    assert received + sockets.dropped == sent
    # Losses of the past are no overload.
    send(sender, sockets, 1)
    assert len(receive(sockets)) == 1
    assert sockets.overloaded == []
    assert received + sockets.dropped == sent


def test_a_closed_port_is_reported_with_what_was_sent(sockets: Sockets) -> None:
    own = LOOPBACK[4]
    closed = "127.0.0.9"  # the port is bound at 127.0.0.1 alone
    assert sockets.send(own, closed, b"a probe") is None
    [error] = receive(sockets)
    assert error == DeliveryError(
        Target(own.path, closed), Rejection("port", "Connection refused", closed), b"a probe"
    )


def test_an_error_of_this_node_is_returned(sockets: Sockets) -> None:
    found = sockets.send(LOOPBACK[4], "127.0.0.1", bytes(65600))
    assert found is not None
    assert found.kind == "size"


def test_sockets_follow_the_plan() -> None:
    four, six = LOOPBACK[4], LOOPBACK[6]
    second = Target(Path.UNDERLAY4, "127.0.0.2")
    with closing(Sockets(free_port(socket.SOCK_DGRAM, "::"))) as sockets:
        sockets.update([four, second, six])
        assert sockets.own == {four.path: four, six.path: six}  # the first of each path
        kept = sockets._open[second]
        sockets.update([second])
        assert sockets.own == {second.path: second}
        assert sockets._open == {second: kept}
        assert sockets.send(second, second.address, b"x") is None
        assert len(receive(sockets)) == 1
        sockets.update([])
        assert (sockets.own, kept.fileno()) == ({}, -1)


def test_an_address_may_come_later() -> None:
    with closing(Sockets(free_port(socket.SOCK_DGRAM, "::"))) as sockets:
        sockets.update([Target(Path.POD4, "10.244.77.0")])
        assert sockets.fault == ""


def test_a_port_in_use_is_a_fault_until_it_is_free(sender: socket.socket) -> None:
    port = sender.getsockname()[1]
    with closing(Sockets(port)) as sockets:
        sockets.update(LOOPBACK.values())
        assert sockets.fault.startswith(
            f"UDP port {port} of 127.0.0.1 is taken by another process (`ss -lunp` names it): "
        )
        assert sockets.own == {Path.UNDERLAY6: LOOPBACK[6]}  # the other one works
        sender.close()
        sockets.update(LOOPBACK.values())
        assert sockets.fault == ""
        assert set(sockets.own) == {Path.UNDERLAY4, Path.UNDERLAY6}


def test_waiting_ends_with_another_descriptor(sockets: Sockets) -> None:
    one, other = socket.socketpair()
    with closing(one), closing(other):
        sockets.watch(one.fileno())
        other.send(b"x")
        assert [fd for fd, _events in sockets.wait(10.0)] == [one.fileno()]
        assert list(sockets.receive([(one.fileno(), 1)])) == []
