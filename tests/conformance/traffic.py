"""Traffic between namespaces, with nothing but this Python's sockets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .namespaces import Namespace

_WAIT = 30  # seconds
_SERVER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], 7), family=family)
print("ready", flush=True)
peer, _ = server.accept()
peer.sendall(peer.recv(100))
peer.close()
"""
_CLIENT = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 7), timeout=30)
peer.sendall(b"ping")
assert peer.recv(100) == b"ping"
"""


def _python(space: Namespace, code: str, *args: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", space.name, sys.executable, "-I", "-S", "-c", code, *args)


@contextmanager
def _echo(space: Namespace, address: str) -> Iterator[None]:
    command = _python(space, _SERVER, address)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n", f"no server on {address}"
            yield
        finally:
            server.kill()


def reaches(source: Namespace, target: Namespace, address: str) -> bool:
    """Whether a TCP connection from *source* is served at *address* in *target*."""
    with _echo(target, address):
        command = _python(source, _CLIENT, address)
        done = subprocess.run(command, capture_output=True, timeout=2 * _WAIT, check=False)
    return done.returncode == 0


@contextmanager
def process_in(space: Namespace) -> Iterator[int]:
    """A process that lives in *space*; its ID."""
    code = "import sys; print('ready', flush=True); sys.stdin.read()"
    command = _python(space, code)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process.pid
        finally:
            process.kill()
