"""The HTTP endpoint: one thread, and a bounded number of connections that cannot hold it up."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from daemon.log import Log
from daemon.metrics.connection import Answer, Connection
from daemon.metrics.http import Request, Response, tell

CONNECTIONS_MAX = 32
"""At a time; one more takes the place of the one that has been there for longest."""
RETRY = 5.0
"""Seconds between attempts to listen at an address that is taken, or not there yet."""
_STOP_SECONDS = 10.0
_AGAIN = 60.0
_BACKLOG = 64


class Endpoint:
    """Serves from `start` to `stop`.

    report: takes why nobody is served, and an empty text when that is over.
    """

    def __init__(
        self, host: str, port: int, answer: Answer, report: Callable[[str], None], log: Log
    ) -> None:
        self._host, self._port, self._log = host, port, log
        self._answer, self._report = partial(self._shield, answer), report
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._listener: socket.socket | None = None
        self._connections: dict[int, Connection] = {}
        self._stopping, self._fault, self._told_at = False, "", -math.inf
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def __enter__(self) -> Endpoint:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._listen()
                self._turn()
        finally:
            for connection in self._connections.values():
                connection.close()
            if self._listener:
                self._listener.close()

    def _listen(self) -> None:
        if self._listener is not None:
            return
        try:
            self._listener = open_listener(self._host, self._port)
        except OSError as error:
            self._tell(explain(self._host, self._port, error))
        else:
            self._tell("")

    def _tell(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            self._report(fault)
            if fault:
                self._log.error(fault)
            else:
                self._log.info("metrics are served", listen=place_of(self._host, self._port))

    def _turn(self) -> None:
        now = time.monotonic()
        for connection in [c for c in self._connections.values() if c.deadline <= now]:
            self._drop(connection)
        ready = self._poll(now)
        now = time.monotonic()
        for fd in ready:
            if (found := self._connections.get(fd)) and not found.advance(self._answer, now):
                self._drop(found)
        if self._listener and self._listener.fileno() in ready:
            self._accept(now)

    def _poll(self, now: float) -> list[int]:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if self._listener:
            poll.register(self._listener, select.POLLIN)
        for connection in self._connections.values():
            poll.register(connection, connection.events)
        deadlines = [c.deadline for c in self._connections.values()]
        deadlines += [] if self._listener else [now + RETRY]
        wait = math.ceil(max(0.0, min(deadlines) - now) * 1000) if deadlines else None
        return [fd for fd, _events in poll.poll(wait)]

    def _accept(self, now: float) -> None:
        assert self._listener is not None  # noqa: S101
        try:
            sock, _address = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._wait(1.0)  # else the waiting connection would keep the loop busy
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            self._drop(next(iter(self._connections.values())))
        self._connections[sock.fileno()] = Connection(sock, now)

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.poll(math.ceil(seconds * 1000))

    def _drop(self, connection: Connection) -> None:
        self._connections.pop(connection.fileno(), None)
        with suppress(OSError):
            connection.close()

    def _shield(self, answer: Answer, request: Request) -> Response:
        try:
            return answer(request)
        except Exception as error:  # a scrape must not end the thread that answers the next one
            now = time.monotonic()
            if now - self._told_at >= _AGAIN:
                self._told_at = now
                self._log.error(f"{request.path} could not be answered: {error!r}")
            return tell(500, "this could not be answered: podwired's log says why")


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket at an IPv4 or IPv6 address. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of the daemon before may still be in TIME-WAIT.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def place_of(host: str, port: int) -> str:
    """Host and port as `metrics.listen` has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def explain(host: str, port: int, error: OSError) -> str:
    """Why nobody can be served there, and what to do."""
    place = place_of(host, port)
    if error.errno == errno.EADDRINUSE:
        return (
            f"metrics cannot be served at {place}: something else listens there; set metrics.listen"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"metrics cannot be served at {place}: no link of this node has that address"
    return f"metrics cannot be served at {place}: {error.strerror or error}"
