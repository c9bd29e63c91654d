"""The sockets of probes: one for each address of this node that others reach it by."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from daemon.probes.failures import read_failure, tell_send_error
from daemon.probes.inspection import Refusal
from daemon.probes.protocol import Path
from daemon.probes.sieve import attach
from daemon.probes.targets import Target

# linux/in.h, linux/in6.h; Python has no names for them.
_IP_MTU_DISCOVER, _IP_RECVERR, _IP_FREEBIND = 10, 11, 15
_IPV6_MTU_DISCOVER, _IPV6_RECVERR, _IPV6_FREEBIND = 23, 25, 78
_PMTUDISC_PROBE = 3  # never fragment, whatever is known of the path
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_TIMESPEC = struct.Struct("@ll")
_AGE_MAX = 10.0
_EXTRA = 512
"""Bytes for what comes with a datagram."""
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
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BUFFER_BYTES = 2 << 20
_DATAGRAM_MAX = 65535
_AT_ONCE = 1500
"""So many datagrams of one socket are read at once: reading twice a second, 3,000 a second."""
_SENDERS = 3
"""So many senders of a flood are named."""
# linux/sock_diag.h: what the queue takes, what it may take, and datagrams that did not get in.
_SO_MEMINFO = 55
_MEMORY = struct.Struct("=9I")
_TAKEN, _ROOM, _LOST = 0, 1, 8
_FULL = 0.75
"""From that share on a queue counts as full: by the next datagram it may have been."""


class Arrival(NamedTuple):
    """A datagram. origin: the address that it came from, by the path that it came by.

    received: when this node's kernel had it, in seconds of the monotonic clock.
    """

    outlet: Outlet
    origin: Target
    port: int
    payload: memoryview
    received: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A kernel's word that what went to the target cannot arrive; payload: what it gave back."""

    target: Target
    refusal: Refusal
    payload: bytes


@dataclass(slots=True)
class Outlet:
    """A socket that is bound to one of this node's addresses.

    lost: datagrams that did not get into its queue, filtered or for want of room, modulo 2^32.
    """

    own: Target
    socket: socket.socket
    lost: int = 0

    def send(self, to: str, port: int, payload: bytes) -> Refusal | None:
        """Send a datagram; why it cannot go."""
        # What an earlier one came to is told at the next call (ip(7), IP_RECVERR).
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            self.socket.sendto(payload, (to, port))
        except OSError as error:
            return tell_send_error(error)
        return None

    def count_lost(self) -> tuple[int, bool]:
        """Datagrams lost since this was asked last, and whether the queue was full meanwhile."""
        raw = self.socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMORY.size)
        memory = _MEMORY.unpack(raw)
        more, self.lost = (memory[_LOST] - self.lost) % (1 << 32), memory[_LOST]
        return more, memory[_TAKEN] >= _FULL * memory[_ROOM]


class Outlets:
    """All of them, to be waited for together. fault: why some of them cannot be opened.

    by_path: the one that probes of each path go out by. flooded: of the last `read`, the addresses
    that more came to than was read or than there was room for, and who sent most of it. filtered,
    overflowed: datagrams that the kernel dropped, as no peer's or for want of room.
    """

    def __init__(self, port: int) -> None:
        self.fault = ""
        self.flooded: dict[Target, tuple[str, ...]] = {}
        self.filtered = self.overflowed = 0
        self._port = port
        self._foreign: Mapping[Path, tuple[int, ...]] = {}
        self.by_path: dict[Path, Outlet] = {}
        self._open: dict[Target, Outlet] = {}
        self._by_fd: dict[int, Outlet] = {}
        self._poll = select.epoll()
        self._buffer = memoryview(bytearray(_DATAGRAM_MAX + 1))

    def close(self) -> None:
        """Close all of them."""
        for outlet in self._open.values():
            outlet.socket.close()
        self._open.clear()
        self._poll.close()

    def listen(self, bell: int) -> None:
        """Let `wait` end, too, when that descriptor is readable."""
        self._poll.register(bell, select.EPOLLIN)

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """Wait until something comes, or for so long: descriptors, and what happened to them."""
        return self._poll.poll(seconds)

    def aim(self, wanted: Iterable[Target]) -> None:
        """Open what is missing, close what nobody wants; `fault` says what did not work."""
        targets = tuple(wanted)
        for own in [own for own in self._open if own not in targets]:
            self._open.pop(own).socket.close()
        faults = [self._try(own) for own in targets if own not in self._open]
        self.fault = next(filter(None, faults), "")
        self._by_fd = {outlet.socket.fileno(): outlet for outlet in self._open.values()}
        self.by_path = {}
        for own in (own for own in targets if own in self._open):
            self.by_path.setdefault(own.path, self._open[own])

    def sift(self, foreign: Mapping[Path, tuple[int, ...]]) -> None:
        """Take in nothing from addresses with these bits (`foreign_bits`), by path."""
        before, self._foreign = self._foreign, foreign
        for own, outlet in self._open.items():
            if before.get(own.path) != foreign.get(own.path):
                attach(outlet.socket, own.path, self._port, foreign.get(own.path, ()))

    def _try(self, own: Target) -> str:
        try:
            opened = _open(own, self._port, self._foreign.get(own.path, ()))
        except OSError as error:
            return _explain(own.address, self._port, error)
        self._open[own] = Outlet(own, opened)
        self._poll.register(opened, select.EPOLLIN)
        return ""

    def read(self, ready: Iterable[tuple[int, int]]) -> Iterator[Arrival | Failure]:
        """What came, of what `wait` said. A payload is to be used before the next one is taken."""
        self.flooded = {}
        for fd, events in ready:
            outlet = self._by_fd.get(fd)
            if outlet is None:
                continue
            if events & select.EPOLLERR:
                yield from self._failures(outlet)
            is_full, senders = self._count_lost(outlet), Counter[str]()
            yield from self._arrivals(outlet, senders)
            if is_full or senders.total() >= _AT_ONCE:
                most = senders.most_common(_SENDERS)
                self.flooded[outlet.own] = tuple(address for address, _count in most)

    def _count_lost(self, outlet: Outlet) -> bool:
        lost, is_full = outlet.count_lost()
        # The kernel counts both together.
        self.overflowed += lost if is_full else 0
        self.filtered += 0 if is_full else lost
        return is_full

    def _arrivals(self, outlet: Outlet, senders: Counter[str]) -> Iterator[Arrival]:
        for _ in range(_AT_ONCE):
            try:
                size, extra, _flags, where = outlet.socket.recvmsg_into([self._buffer], _EXTRA)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier one came to: the error queue has it
            senders[where[0]] += 1
            origin = Target(outlet.own.path, where[0])
            received = time.monotonic() - _age(extra)
            yield Arrival(outlet, origin, where[1], self._buffer[:size], received)

    def _failures(self, outlet: Outlet) -> Iterator[Failure]:
        for _ in range(_AT_ONCE):
            try:
                data, extra, _flags, where = outlet.socket.recvmsg(
                    _DATAGRAM_MAX, _EXTRA, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
                )
            except OSError:
                return
            refusal = read_failure(extra, outlet.own.address, where[0])
            if refusal is not None:
                yield Failure(Target(outlet.own.path, where[0]), refusal, data)


def _age(extra: list[tuple[int, int, bytes]]) -> float:
    """Seconds since the kernel had a datagram; 0 where that cannot be, for a clock was set."""
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            age = time.time() - seconds - nanoseconds / 1e9
            return age if 0 <= age < _AGE_MAX else 0.0
    return 0.0


def _open(own: Target, port: int, foreign: tuple[int, ...]) -> socket.socket:
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    version = own.path.version
    made = socket.socket(_FAMILIES[version], kind)
    try:
        # Free to bind before the address is there: it comes with the device, and may go with it.
        for level, option, value in _OPTIONS[version]:
            made.setsockopt(level, option, value)
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        with suppress(OSError):  # not root of the machine
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        attach(made, own.path, port, foreign)  # before anything can come
        made.bind((own.address, port))
    except OSError:
        made.close()
        raise
    return made


def _explain(address: str, port: int, error: OSError) -> str:
    where = f"UDP port {port} of {address}"
    if error.errno == errno.EADDRINUSE:
        hint = "set `health: {port: ...}` in podwired.yaml on all nodes, or end who has it"
        return f"{where} is taken by another process (`ss -lunp` names it): {hint}"
    return f"{where} cannot be used: {os.strerror(error.errno or 0)}"
