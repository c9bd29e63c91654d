"""One connection of the endpoint: a request comes in, a response goes out, then it is closed."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from contextlib import suppress

from daemon.metrics.http import BadRequest, Request, Response, parse, render, tell

REQUEST_SECONDS = 5.0
"""How long a request may take to come in."""
RESPONSE_SECONDS = 10.0
"""How long a response may take to go out."""
_DRAIN_SECONDS = 1.0
_CHUNK = 16384

Answer = Callable[[Request], Response]


class Connection:
    """events: what it waits for (poll(2)); deadline: when it is over, by the caller's clock."""

    def __init__(self, sock: socket.socket, now: float) -> None:
        sock.setblocking(False)
        self.events = select.POLLIN
        self.deadline = now + REQUEST_SECONDS
        self._socket = sock
        self._in = bytearray()
        self._out = memoryview(b"")
        self._draining = False

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Be done with it."""
        self._socket.close()

    def advance(self, answer: Answer, now: float) -> bool:
        """Do what can be done without waiting; whether it goes on after that."""
        try:
            if self._draining:
                return bool(self._socket.recv(_CHUNK))
            if self._out:
                return self._send(now)
            return self._receive(answer, now)
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _receive(self, answer: Answer, now: float) -> bool:
        data = self._socket.recv(_CHUNK)
        if not data:
            return False
        self._in += data
        try:
            request = parse(bytes(self._in))
        except BadRequest as error:
            text = str(error.args[1]).lower()
            return self._begin(render(tell(error.status, text)), now)
        if request is None:
            return True
        return self._begin(render(answer(request), with_body=request.method != "HEAD"), now)

    def _begin(self, data: bytes, now: float) -> bool:
        self._in.clear()
        self._out, self.events = memoryview(data), select.POLLOUT
        self.deadline = now + RESPONSE_SECONDS
        return self._send(now)

    def _send(self, now: float) -> bool:
        self._out = self._out[self._socket.send(self._out) :]
        if self._out:
            return True
        # Closed with something unread, a connection is reset, and the response lost with it
        # (RFC 9112, 9.6): the other end closes first, or the time is up.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._draining, self.events = True, select.POLLIN
        self.deadline = now + _DRAIN_SECONDS
        return True
