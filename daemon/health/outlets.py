"""The sockets of probes: one for each address of this node that others reach it by."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from daemon.health.failures import read_failure, tell_send_error
from daemon.health.inspection import Refusal
from daemon.health.targets import Target
from daemon.health.wire import Path
from kernel.model import IPAddress

# linux/in.h, linux/in6.h; Python has no names for them.
_IP_MTU_DISCOVER, _IP_RECVERR, _IP_FREEBIND = 10, 11, 15
_IPV6_MTU_DISCOVER, _IPV6_RECVERR, _IPV6_FREEBIND = 23, 25, 78
_PMTUDISC_PROBE = 3  # never fragment, whatever is known of the path
_SO_RCVBUFFORCE = 33
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
_BUFFER_BYTES = 512 << 10
_DATAGRAM_MAX = 65535
_AT_ONCE = 32
"""So many datagrams of one socket are read before another's."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A datagram. origin: the address that it came from, by the path that it came by."""

    outlet: Outlet
    origin: Target
    port: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Failure:
    """A kernel's word that what went to the target cannot arrive; payload: what it gave back."""

    target: Target
    refusal: Refusal
    payload: bytes


@dataclass(frozen=True, slots=True)
class Outlet:
    """A socket that is bound to one of this node's addresses."""

    own: Target
    socket: socket.socket

    def send(self, to: IPAddress, port: int, payload: bytes) -> Refusal | None:
        """Send a datagram; why it cannot go."""
        # What an earlier one came to is told at the next call (ip(7), IP_RECVERR).
        self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            self.socket.sendto(payload, (str(to), port))
        except OSError as error:
            return tell_send_error(error)
        return None


class Outlets:
    """All of them, and one descriptor to wait for. fault: why some of them cannot be opened."""

    def __init__(self, port: int) -> None:
        self.fault = ""
        self._port = port
        self._open: dict[Target, Outlet] = {}
        self._poll = select.epoll()
        self._buffer = memoryview(bytearray(_DATAGRAM_MAX + 1))

    def close(self) -> None:
        """Close all of them."""
        for outlet in self._open.values():
            outlet.socket.close()
        self._open.clear()
        self._poll.close()

    def fileno(self) -> int:
        """A descriptor that is readable when something came."""
        return self._poll.fileno()

    def aim(self, wanted: Iterable[Target]) -> None:
        """Open what is missing, close what nobody wants; `fault` says what did not work."""
        targets = tuple(wanted)
        for own in [own for own in self._open if own not in targets]:
            self._open.pop(own).socket.close()
        faults = [self._try(own) for own in targets if own not in self._open]
        self.fault = next(filter(None, faults), "")

    def _try(self, own: Target) -> str:
        try:
            opened = _open(own.address, self._port)
        except OSError as error:
            return _explain(own.address, self._port, error)
        self._open[own] = Outlet(own, opened)
        self._poll.register(opened, select.EPOLLIN)
        return ""

    def by_path(self) -> Mapping[Path, Outlet]:
        """The one that probes of each path go out by."""
        found: dict[Path, Outlet] = {}
        for own, outlet in self._open.items():
            found.setdefault(own.path, outlet)
        return found

    def read(self) -> Iterator[Arrival | Failure]:
        """What came; does not wait. A payload is to be used before the next one is asked for."""
        for outlet in tuple(self._open.values()):
            yield from self._failures(outlet)
            yield from self._arrivals(outlet)

    def _arrivals(self, outlet: Outlet) -> Iterator[Arrival]:
        for _ in range(_AT_ONCE):
            try:
                size, where = outlet.socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                continue  # what an earlier one came to: the error queue has it
            origin = Target(outlet.own.path, ip_address(where[0]))
            yield Arrival(outlet, origin, where[1], self._buffer[:size])

    def _failures(self, outlet: Outlet) -> Iterator[Failure]:
        for _ in range(_AT_ONCE):
            try:
                data, extra, _flags, where = outlet.socket.recvmsg(
                    _DATAGRAM_MAX, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT
                )
            except OSError:
                return
            refusal = read_failure(extra, str(outlet.own.address), where[0])
            if refusal is not None:
                target = Target(outlet.own.path, ip_address(where[0]))
                yield Failure(target, refusal, data)


def _open(address: IPAddress, port: int) -> socket.socket:
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    made = socket.socket(_FAMILIES[address.version], kind)
    try:
        # Free to bind before the address is there: it comes with the device, and may go with it.
        for level, option, value in _OPTIONS[address.version]:
            made.setsockopt(level, option, value)
        with suppress(OSError):  # not root of the machine
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        made.bind((str(address), port))
    except OSError:
        made.close()
        raise
    return made


def _explain(address: IPAddress, port: int, error: OSError) -> str:
    where = f"UDP port {port} of {address}"
    if error.errno == errno.EADDRINUSE:
        hint = "set `health: {port: ...}` in podwired.yaml on all nodes, or end who has it"
        return f"{where} is taken by another process (`ss -lunp` names it): {hint}"
    return f"{where} cannot be used: {os.strerror(error.errno or 0)}"
