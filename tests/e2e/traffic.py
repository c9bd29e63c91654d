"""Traffic from pod to pod that goes on while a test does something else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.e2e.pods import read
from tests.pytest_netns.namespace import call_in

PORT = 7777
PAUSE = 0.02
SECONDS = 20.0
"""After which a request counts as failed."""


@dataclass
class Requests:
    """Requests one after the other, by a thread in a pod's network namespace."""

    netns: str
    request: Callable[[int], None]
    """A request and its answer; OSError when it fails."""
    failed: list[str] = field(default_factory=list)
    answered: int = 0
    longest: float = 0
    """Seconds until the latest answer."""

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """They begin, and have ended after the block."""
        end = threading.Event()
        work = threading.Thread(target=lambda: call_in(self.netns, lambda: self._run(end)))
        work.start()
        try:
            yield
        finally:
            end.set()
            work.join()

    def _run(self, end: threading.Event) -> None:
        number = 0
        while not end.wait(PAUSE):
            number += 1
            began = time.monotonic()
            try:
                self.request(number)
            except OSError as error:
                self.failed.append(f"{time.strftime('%T')} request {number}: {error!r}")
            else:
                self.answered += 1
                self.longest = max(self.longest, time.monotonic() - began)


@contextmanager
def connection(client: str, server: str, address: str) -> Iterator[Requests]:
    """Requests over one connection that is there before. client, server: network namespaces."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listen() -> socket.socket:
        return socket.create_server((address, PORT), family=family, backlog=1)

    listener = call_in(server, listen)
    peer = call_in(client, lambda: socket.create_connection((address, PORT), SECONDS))
    answerer, _ = listener.accept()

    def answer() -> None:
        with suppress(OSError):
            while got := answerer.recv(64):
                answerer.sendall(got)

    def ask(number: int) -> None:
        text = f"{number}\n".encode()
        peer.sendall(text)
        got = b""
        while not got.endswith(b"\n"):
            more = peer.recv(64)
            if not more:
                raise ConnectionResetError("the connection has ended")
            got += more
        if got != text:
            raise ConnectionError(f"{got!r} answers {text!r}")

    thread = threading.Thread(target=answer)
    thread.start()
    requests = Requests(client, ask)
    try:
        with requests.going_on():
            yield requests
    finally:
        peer.close()
        thread.join()
        answerer.close()
        listener.close()


@contextmanager
def new_connections(client: str, target: str) -> Iterator[Requests]:
    """HTTP requests, each over a connection of its own. client: a network namespace."""

    def ask(_: int) -> None:
        read(target, SECONDS)

    requests = Requests(client, ask)
    with requests.going_on():
        yield requests
