"""The sockets of the probes, one for each of this node's addresses, and the ICMP errors they get.

A socket's queue is bounded by its receive buffer, and an iteration reads a bounded number of
datagrams from it, whatever others send: RECEIVE_MAX, which is 3,000 a second at two iterations.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from daemon.probes.diagnosis import Rejection
from daemon.probes.protocol import Path
from daemon.probes.schedule import Target

RECEIVE_MAX = 1500
"""Datagrams read from one socket in one iteration."""
# linux/in.h, linux/in6.h; Python has no names for them.
_IP_MTU_DISCOVER, _IP_RECVERR, _IP_FREEBIND = 10, 11, 15
_IPV6_MTU_DISCOVER, _IPV6_RECVERR, _IPV6_FREEBIND = 23, 25, 78
_PMTUDISC_PROBE = 3  # never fragment, whatever MTU of the path is cached
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_TIMESPEC = struct.Struct("@ll")
_AGE_MAX = 10.0
_CONTROL_BYTES = 512
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_OPTIONS = {
    4: (
        (socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE),
        (socket.IPPROTO_IP, _IP_RECVERR, 1),
        (socket.IPPROTO_IP, _IP_FREEBIND, 1),
    ),
    6: (
        (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1),
        (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE),
        (socket.IPPROTO_IPV6, _IPV6_RECVERR, 1),
        (socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1),
    ),
}
_BUFFER_BYTES = 2 << 20
_DATAGRAM_MAX = 65535
# linux/sock_diag.h, SK_MEMINFO_*: bytes in the queue, their limit, datagrams dropped.
_SO_MEMINFO = 55
_MEMORY = struct.Struct("=9I")
_USED, _LIMIT, _DROPS = 0, 1, 8
_FULL = 0.75
"""Share of the limit at which the queue may have been full: a large datagram did not fit."""
# linux/errqueue.h, struct sock_extended_err: errno, origin, type, code, padding, info, data; then
# the address of the sender of the error.
_ERROR = struct.Struct("=iBBBxII")
_LOCAL, _ICMP, _ICMP6 = 1, 2, 3
_RECVERR = {(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)}
# (origin, type, code): RFC 792, RFC 1812 section 5.2.7.1; RFC 4443 section 3.1.
_PORT = {(_ICMP, 3, 3), (_ICMP6, 1, 4)}
_FORBIDDEN = {(_ICMP, 3, code) for code in (9, 10, 13)} | {(_ICMP6, 1, code) for code in (1, 5, 6)}
_SIZE = {(_ICMP, 3, 4), (_ICMP6, 2, 0)}

Control = list[tuple[int, int, bytes]]


class Datagram(NamedTuple):
    """A datagram. own: the address that received it; origin: its sender, by the same path.

    received: when the kernel received it, in seconds of the monotonic clock.
    """

    own: Target
    origin: Target
    port: int
    payload: memoryview
    received: float


@dataclass(frozen=True, slots=True)
class DeliveryError:
    """What was sent to the target cannot arrive. payload: as much of it as the report quotes."""

    target: Target
    rejection: Rejection
    payload: bytes


class Sockets:
    """All sockets, with one poll for all of them.

    fault: why one cannot be opened. own: the address that probes of each path are sent from.
    overloaded: the addresses that got more than the last `receive` read, or than their queue holds.
    dropped: datagrams that did not fit a queue, since the start.
    """

    def __init__(self, port: int) -> None:
        self.fault, self.dropped = "", 0
        self.own: dict[Path, Target] = {}
        self.overloaded: list[Target] = []
        self._port = port
        self._open: dict[Target, socket.socket] = {}
        self._drops: dict[Target, int] = {}
        self._by_fd: dict[int, Target] = {}
        self._poll = select.epoll()
        self._buffer = memoryview(bytearray(_DATAGRAM_MAX + 1))

    def close(self) -> None:
        """Close all of them."""
        for opened in self._open.values():
            opened.close()
        self._open.clear()
        self._poll.close()

    def watch(self, fd: int) -> None:
        """Let `wait` end, too, when that descriptor is readable."""
        self._poll.register(fd, select.EPOLLIN)

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        """Wait until something is received, for so long at most: descriptors and their events."""
        return self._poll.poll(seconds)

    def update(self, desired: Iterable[Target]) -> None:
        """Have sockets at these addresses alone; `fault` is why one cannot be opened."""
        targets = tuple(desired)
        for own in [own for own in self._open if own not in targets]:
            self._open.pop(own).close()
        faults = [self._try(own) for own in targets if own not in self._open]
        self.fault = next(filter(None, faults), "")
        self._by_fd = {opened.fileno(): own for own, opened in self._open.items()}
        self.own = {}
        for own in (own for own in targets if own in self._open):
            self.own.setdefault(own.path, own)

    def _try(self, own: Target) -> str:
        try:
            opened = _open_socket(own, self._port)
        except OSError as error:
            return _explain(own.address, self._port, error)
        self._open[own], self._drops[own] = opened, 0
        self._poll.register(opened, select.EPOLLIN)
        return ""

    def send(self, own: Target, to: str, payload: bytes) -> Rejection | None:
        """Send a datagram from an address; the error of this node's own kernel."""
        opened = self._open[own]
        # An error of an earlier datagram is returned by the next call (ip(7), IP_RECVERR).
        opened.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            opened.sendto(payload, (to, self._port))
        except OSError as error:
            return read_send_error(error)
        return None

    def receive(self, ready: Iterable[tuple[int, int]]) -> Iterator[Datagram | DeliveryError]:
        """What `wait` announced. A payload is valid until the next one is taken."""
        self.overloaded = []
        for fd, events in ready:
            own = self._by_fd.get(fd)
            if own is None:
                continue
            if events & select.EPOLLERR:
                yield from self._errors(own)
            is_full = self._count_drops(own)
            read = 0
            for datagram in self._datagrams(own):
                read += 1
                yield datagram
            if is_full or read == RECEIVE_MAX:
                self.overloaded.append(own)

    def _count_drops(self, own: Target) -> bool:
        """Count what the kernel dropped; whether the queue was full (bad checksums count, too)."""
        raw = self._open[own].getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
        memory = _MEMORY.unpack(raw)
        drops, self._drops[own] = (memory[_DROPS] - self._drops[own]) % (1 << 32), memory[_DROPS]
        self.dropped += drops
        return bool(drops) and bool(memory[_USED] >= _FULL * memory[_LIMIT])

    def _datagrams(self, own: Target) -> Iterator[Datagram]:
        opened = self._open[own]
        for _ in range(RECEIVE_MAX):
            try:
                size, control, _, sender = opened.recvmsg_into([self._buffer], _CONTROL_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # the error of an earlier datagram, which is in the error queue
            received = time.monotonic() - _age(control)
            origin = Target(own.path, sender[0])
            yield Datagram(own, origin, sender[1], self._buffer[:size], received)

    def _errors(self, own: Target) -> Iterator[DeliveryError]:
        flags = socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
        for _ in range(RECEIVE_MAX):
            try:
                received = self._open[own].recvmsg(_DATAGRAM_MAX, _CONTROL_BYTES, flags)
            except OSError:
                return
            payload, control, _, to = received
            rejection = read_error(control, own.address, to[0])
            if rejection is not None:
                yield DeliveryError(Target(own.path, to[0]), rejection, payload)


def _age(control: Control) -> float:
    """Seconds since the kernel received a datagram; 0 where its clock was set meanwhile."""
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            age = time.time() - seconds - nanoseconds / 1e9
            return age if 0 <= age < _AGE_MAX else 0.0
    return 0.0


def _open_socket(own: Target, port: int) -> socket.socket:
    version = own.path.version
    opened = socket.socket(_FAMILIES[version], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        # IP_FREEBIND: the address comes with the VXLAN device, and may go with it.
        for level, option, value in _OPTIONS[version]:
            opened.setsockopt(level, option, value)
        opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        with suppress(OSError):  # needs CAP_NET_ADMIN in the first user namespace
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        opened.bind((own.address, port))
    except OSError:
        opened.close()
        raise
    return opened


def _explain(address: str, port: int, error: OSError) -> str:
    where = f"UDP port {port} of {address}"
    if error.errno == errno.EADDRINUSE:
        hint = "set `health: {port: ...}` in podwired.yaml on all nodes, or end that process"
        return f"{where} is taken by another process (`ss -lunp` names it): {hint}"
    return f"{where} cannot be used: {os.strerror(error.errno or 0)}"


def read_send_error(error: OSError) -> Rejection:
    """Why this node's own kernel does not send a datagram."""
    text = os.strerror(error.errno or 0)
    if error.errno == errno.EMSGSIZE:
        return Rejection("size", text)
    if error.errno in (errno.EPERM, errno.EACCES):
        return Rejection("forbidden", "this node's own firewall does not let it out")
    return Rejection("unreachable", f"on this node: {text}")


def read_error(control: Control, own: str, target: str) -> Rejection | None:
    """The error in a message of the error queue (ip(7), IP_RECVERR); None where there is none.

    own, target: the addresses that the datagram was sent from and to.
    """
    for level, kind, data in control:
        if (level, kind) in _RECVERR and len(data) >= _ERROR.size:
            return _parse_error(data, own, target)
    return None


def _parse_error(data: bytes, own: str, target: str) -> Rejection:
    code, origin, kind, subkind, info, _data = _ERROR.unpack_from(data)
    text, by = os.strerror(code), _parse_offender(data[_ERROR.size :])
    report = (origin, kind, subkind)
    if origin == _LOCAL and code == errno.EMSGSIZE:
        return Rejection("size", text, mtu=info)
    if origin == _LOCAL:
        return Rejection("unreachable", text)
    if report in _SIZE:
        return Rejection("size", text, by, info)
    if report in _PORT and by == target:
        return Rejection("port", text, by)
    if report in _PORT | _FORBIDDEN:
        return Rejection("forbidden", "a firewall does not let it through", by)
    if by == own:
        return Rejection("unreachable", "no answer to ARP or neighbour discovery for that address")
    return Rejection("unreachable", text.lower(), by)


def _parse_offender(data: bytes) -> str:
    if len(data) < 2:
        return ""
    family = struct.unpack_from("=H", data)[0]
    if family == socket.AF_INET and len(data) >= 8:
        return str(ip_address(data[4:8]))
    if family == socket.AF_INET6 and len(data) >= 24:
        return str(ip_address(data[8:24]))
    return ""
