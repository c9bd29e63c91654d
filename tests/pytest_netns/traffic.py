"""Real traffic between namespaces: servers that tell whom they saw, and their clients."""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Literal

Protocol = Literal["tcp", "udp"]
SocketMaker = Callable[[socket.AddressFamily, socket.SocketKind], socket.socket]

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
REPLY_TIMEOUT = 30.0
"""Seconds that a client waits for a connection, and for a reply that must come."""
DOUBT_TIMEOUT = 2.0
"""The same where there may well be none."""


def _open(make: SocketMaker, protocol: Protocol, address: str) -> socket.socket:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    return make(family, KINDS[protocol])


class EchoServer:
    """Replies to each request with the address that it came from."""

    def __init__(self, make: SocketMaker, protocol: Protocol, address: str, port: int) -> None:
        self.protocol: Protocol = protocol
        self._socket = _open(make, protocol, address)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        self.listens: tuple[str, int] = (address, self._socket.getsockname()[1])
        if protocol == "tcp":
            self._socket.listen()
        serve = {"tcp": self._serve_tcp, "udp": self._serve_udp}[protocol]
        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Repeatable."""
        if self._socket.fileno() < 0:
            return
        # Closing alone does not wake a thread that sits in accept or recvfrom.
        with contextlib.suppress(OSError):  # UDP: wakes the reader, yet says "not connected"
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(REPLY_TIMEOUT)
                try:
                    connection.sendall(_plain(peer[0]).encode())
                except OSError:
                    continue

    def _serve_udp(self) -> None:
        while True:
            try:
                request, peer = self._socket.recvfrom(64)
                if not request:
                    return
                self._socket.sendto(_plain(peer[0]).encode(), peer)
            except ConnectionError:
                continue
            except OSError:
                return


def _plain(address: str) -> str:
    return address.partition("%")[0]


def exchange(
    make: SocketMaker,
    protocol: Protocol,
    to: tuple[str, int],
    bind: str = "",
    seconds: float = REPLY_TIMEOUT,
) -> str:
    """One request and its reply: the source address that the server saw."""
    with _open(make, protocol, to[0]) as client:
        client.settimeout(seconds)
        if bind:
            client.bind((bind, 0))
        client.connect(to)
        if protocol == "udp":
            client.send(b"who am I?")
        reply = client.recv(64)
    if not reply:
        raise ConnectionResetError(f"{to[0]} port {to[1]} closed the connection without a reply")
    return reply.decode()
