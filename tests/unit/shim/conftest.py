"""The shim, compiled with sanitizers, and a peer that answers it as a test wants."""

import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests import ROOT

SOURCE = ROOT / "cni_plugin" / "shim" / "shim.c"
FLAGS = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined")
HEAD = struct.Struct("=4sIIII")
PROTOCOL = 2

Answer = Callable[[socket.socket], None]


class Peer:
    """A daemon that answers each connection as it was told last."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "s"
        self.answer: Answer = lambda connection: None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            # The shim may be gone before it was answered.
            with connection, suppress(ConnectionError):
                self.answer(connection)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def compile_shim(program: Path, *flags: str) -> Path:
    """The shim with sanitizers that end it at the first fault."""
    subprocess.run(["gcc", *FLAGS, *flags, "-o", program, SOURCE], check=True)
    return program


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim with sanitizers."""
    return compile_shim(tmp_path_factory.mktemp("shim") / "podwire")


@pytest.fixture(scope="session")
def hasty_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that waits a second for its reply, and for its beginning."""
    flags = ("-DREPLY_SECONDS=1", "-DBEGIN_SECONDS=1")
    return compile_shim(tmp_path_factory.mktemp("hasty") / "podwire", *flags)


@pytest.fixture(scope="session")
def impatient_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that waits a second for its reply, once its call was begun."""
    return compile_shim(tmp_path_factory.mktemp("impatient") / "podwire", "-DREPLY_SECONDS=1")


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """A peer; each test sets its `answer`."""
    made = Peer(tmp_path_factory.mktemp("peer"))
    yield made
    made.close()


def run(
    shim: Path, path: Path | str, stdin: bytes = b"{}", *, command: tuple[str, ...] = (), **env: str
) -> "subprocess.CompletedProcess[bytes]":
    """A call; `command` executes the shim, which is its last argument."""
    # Leaks are none: the shim lives for one call and leaves its buffers to its end.
    options = {"ASAN_OPTIONS": "detect_leaks=0"}
    whole = {"CNI_COMMAND": "ADD", "PODWIRE_SOCKET": str(path), **options, **env}
    done = subprocess.run(
        [*command, shim], input=stdin, env=whole, capture_output=True, timeout=60, check=False
    )
    assert b"AddressSanitizer" not in done.stderr
    assert b"runtime error" not in done.stderr
    return done


def read_request(connection: socket.socket, *, begin: bool = True) -> tuple[bytes, bytes]:
    """The strings and the stdin of a request. begin: take its token, so that it is ours."""
    first, descriptors, _flags, _address = socket.recv_fds(connection, HEAD.size, 2)
    with ExitStack() as stack:
        for fd in descriptors:
            stack.callback(os.close, fd)
        magic, version, strings, stdin, _errno = HEAD.unpack(first)
        assert (magic, version) == (b"PWRQ", PROTOCOL)
        if begin:
            assert os.read(descriptors[0], 8) == struct.pack("=Q", 1)
        with connection.makefile("rb") as stream:
            return stream.read(strings), stream.read(stdin)


def replying(data: bytes, status: int = 0, err: bytes = b"") -> Answer:
    """An answer that is a whole reply."""
    return sending(HEAD.pack(b"PWRP", PROTOCOL, status, len(data), len(err)) + data + err)


def sending(data: bytes) -> Answer:
    """An answer of these bytes."""

    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(data)

    return answer
