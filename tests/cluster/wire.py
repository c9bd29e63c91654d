"""The way to a server, in the hands of a test: bytes counted, cut, silent, slow.

TLS goes through untouched, so what is seen here is what a network sees.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

_PIECE = 1 << 16
_LOOK = 0.02
"""Seconds between looks at the state while nothing moves."""

Connect = Callable[[], socket.socket]


class Wire:
    """Carries connections from a listener to whatever `connect` reaches.

    The listener may belong to another network namespace than the server; make: a socket of its
    namespace, to listen again.
    """

    def __init__(
        self, listener: socket.socket, connect: Connect, make: Connect | None = None
    ) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.up = self.down = self.opened = 0
        """Bytes to the server, bytes from it, connections so far."""
        self._listener, self._connect = listener, connect
        family = listener.family
        self._make = make or (lambda: socket.socket(family))
        self._era = 0
        self._flowing = threading.Event()
        self._flowing.set()
        self._rate: float | None = None
        self._done = False
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = self._start(self._accept, listener)

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many are open now."""
        with self._lock:
            return len(self._ends) // 2

    def refuse(self) -> None:
        """Nobody listens any more, and what was open is reset: the server's process is gone."""
        self._listener.close()
        self._accepting.join()
        self.cut()

    def listen(self) -> None:
        """Listen again where it did before; all flows."""
        self.let_flow()
        if self._listener.fileno() >= 0:
            return
        fresh = self._make()
        fresh.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        fresh.bind(self.address)
        fresh.listen(1024)
        self._listener = fresh
        self._accepting = self._start(self._accept, fresh)

    def cut(self) -> None:
        """Reset what is open; new connections are served."""
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            with contextlib.suppress(OSError):
                # SO_LINGER of 0 s: a reset instead of a FIN.
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.shutdown(socket.SHUT_RDWR)

    def hush(self) -> None:
        """Nothing moves: open connections are half-open, new ones are taken and never answered."""
        self._flowing.clear()

    def strand(self) -> None:
        """What is open now stays so and never moves again, as after a lost NAT entry."""
        self._era += 1

    def throttle(self, rate: float) -> None:
        """Carry at most so many bytes a second from the server: a slow reader to it."""
        self._rate = rate

    def let_flow(self) -> None:
        """Everything moves at full speed again, what was held back, too."""
        self._rate = None
        self._flowing.set()

    def close(self) -> None:
        """End everything. Repeatable."""
        self._done = True
        self._flowing.set()
        self._listener.close()
        self._accepting.join()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _start(self, work: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        listener.settimeout(_LOOK)  # closing a socket wakes nobody who waits for it
        while listener.fileno() >= 0:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            client.settimeout(None)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.opened += 1
            self._threads = [t for t in self._threads if t.is_alive()]
            self._threads.append(self._start(self._carry, client))

    def _carry(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            self._add(client)
            try:
                with self._connect() as server:
                    self._add(server)
                    try:
                        self._shuttle(client, server)
                    finally:
                        self._forget(server)
            finally:
                self._forget(client)

    def _add(self, end: socket.socket) -> None:
        with self._lock:
            self._ends.add(end)

    def _forget(self, end: socket.socket) -> None:
        with self._lock:
            self._ends.discard(end)

    def _shuttle(self, client: socket.socket, server: socket.socket) -> None:
        poll = select.poll()
        poll.register(client, select.POLLIN)
        poll.register(server, select.POLLIN)
        era = self._era
        while not self._done:
            for fd, _event in poll.poll(1000):
                self._flowing.wait()
                while era != self._era and not self._done:
                    time.sleep(_LOOK)
                ours = fd == client.fileno()
                source, sink = (client, server) if ours else (server, client)
                data = source.recv(_PIECE if self._rate is None else 512)
                if not data:
                    return
                sink.sendall(data)
                self._count(len(data), up=ours)

    def _count(self, length: int, *, up: bool) -> None:
        with self._lock:
            if up:
                self.up += length
            else:
                self.down += length
        if self._rate and not up:
            time.sleep(length / self._rate)
