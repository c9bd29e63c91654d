"""Echo requests (RFC 792, RFC 4443) from the calling thread's network namespace."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress

from kernel.frames import echo_request
from kernel.model import IPAddress
from kernel.netlink.codec import FAMILY
from kernel.packets import ECHO_REPLY, ICMP_OF

_HEAD_BYTES = 8
_TOKEN_BYTES = 16


class Echo(AbstractContextManager["Echo"]):
    """Requests to some addresses. unanswered: those that have not answered yet."""

    def __init__(self, addresses: Iterable[IPAddress]) -> None:
        """Open sockets, which stay in the calling thread's namespace. Raises OSError."""
        self.unanswered = set(addresses)
        self._token = os.urandom(_TOKEN_BYTES)
        self._sockets: dict[int, socket.socket] = {}
        try:
            for version in sorted({address.version for address in self.unanswered}):
                made = socket.socket(FAMILY[version], socket.SOCK_RAW, ICMP_OF[version])
                self._sockets[version] = made
                made.setblocking(False)
        except OSError:
            self.__exit__()
            raise

    def __exit__(self, *_exception: object) -> None:
        for each in self._sockets.values():
            each.close()

    @property
    def descriptors(self) -> Iterable[int]:
        """Readable when `receive` has something to do."""
        return [each.fileno() for each in self._sockets.values()]

    def send(self) -> None:
        """Ask those that have not answered."""
        for number, address in enumerate(sorted(self.unanswered, key=lambda a: (a.version, a))):
            request = echo_request(address.version, os.getpid(), number, self._token)
            with suppress(OSError):  # no route, or a filter of this namespace
                self._sockets[address.version].sendto(request, (str(address), 0))

    def receive(self) -> None:
        """Take what has come."""
        for version, each in self._sockets.items():
            with suppress(OSError):  # nothing more, or an error that came for a request
                while True:
                    data, sender = each.recvfrom(2048)
                    packet = data[(data[0] & 0xF) * 4 :] if version == 4 else data
                    kind = bytes((ECHO_REPLY[ICMP_OF[version]],))
                    if packet[:1] == kind and packet[_HEAD_BYTES:] == self._token:
                        source = sender[0].partition("%")[0]
                        self.unanswered -= {a for a in self.unanswered if str(a) == source}


def ask(echoes: Sequence[Echo], seconds: float) -> None:
    """Send all requests, and wait so long for the answers at most."""
    poll, until = select.poll(), time.monotonic() + seconds
    owners: dict[int, Echo] = {}
    for each in echoes:
        each.send()
        for descriptor in each.descriptors:
            poll.register(descriptor, select.POLLIN)
            owners[descriptor] = each
    # Once more after the time: a busy processor may have kept this thread from what has come.
    left = seconds
    while left > 0 and any(each.unanswered for each in echoes):
        left = until - time.monotonic()
        for descriptor, _event in poll.poll(max(0.0, left) * 1000):
            owners[descriptor].receive()


def echo(addresses: Iterable[IPAddress], seconds: float) -> set[IPAddress]:
    """Those of the addresses that answer within the time; it ends when all have. Raises OSError."""
    wanted = set(addresses)
    with Echo(wanted) as made:
        ask([made], seconds)
        return wanted - made.unanswered
