"""The shim under AddressSanitizer: it stays in bounds whatever its caller or its peer sends."""

import json
import os
import random
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "cni_plugin" / "shim" / "shim.c"
FLAGS = ("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined")
HEAD = struct.Struct("=4sIIII")

Answer = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim, compiled with sanitizers that end it at the first fault."""
    program = tmp_path_factory.mktemp("shim") / "podwire"
    subprocess.run(["gcc", *FLAGS, "-o", program, SOURCE], check=True)
    return program


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Callable[[Answer], Path]]:
    """A socket at which one connection is answered by a function."""
    with socket.socket(socket.AF_UNIX) as listener:

        def start(answer: Answer) -> Path:
            path = tmp_path / "s"
            listener.bind(str(path))
            listener.listen()

            def serve() -> None:
                connection, _address = listener.accept()
                with connection:
                    answer(connection)

            threading.Thread(target=serve, daemon=True).start()
            return path

        yield start


def run(
    shim: Path, path: Path, stdin: bytes = b"{}", **env: str
) -> "subprocess.CompletedProcess[bytes]":
    # Leaks are none: the shim lives for one call and leaves its buffers to its end.
    options = {"ASAN_OPTIONS": "detect_leaks=0"}
    whole = {"CNI_COMMAND": "ADD", "PODWIRE_SOCKET": str(path), **options, **env}
    done = subprocess.run(
        [shim], input=stdin, env=whole, capture_output=True, timeout=60, check=False
    )
    assert b"AddressSanitizer" not in done.stderr
    assert b"runtime error" not in done.stderr
    return done


def read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """The strings and the stdin of a request."""
    with connection.makefile("rb") as stream:
        magic, version, strings, stdin, _errno = HEAD.unpack(stream.read(HEAD.size))
        assert (magic, version) == (b"PWRQ", 1)
        return stream.read(strings), stream.read(stdin)


def test_a_call_goes_through(shim: Path, peer: Callable[[Answer], Path]) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def answer(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(HEAD.pack(b"PWRP", 1, 7, 5, 3) + b"hello" + b"err")

    stdin = os.urandom(300_000)
    done = run(shim, peer(answer), stdin, CNI_ARGS="A=B", OTHER="x", CNI_NETNS="/no/such")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"hello", b"err")
    strings, sent = seen[0]
    assert sent == stdin
    assert strings.split(b"\0")[0] == b"podwire"
    assert b"CNI_ARGS=A=B\0" in strings
    assert b"OTHER" not in strings


@pytest.mark.parametrize("seed", range(40))
def test_garbage_from_the_peer_is_error_11(
    shim: Path, peer: Callable[[Answer], Path], seed: int
) -> None:
    rng = random.Random(seed)
    head = [b"PWRP", 1, 0, rng.choice([0, 5, 1 << 24, 1 << 31]), rng.choice([0, 1 << 20, 1 << 31])]
    head[rng.randrange(5)] = rng.choice([b"XXXX", 2, 256, 1 << 30])
    try:
        data = HEAD.pack(*head)
    except struct.error:
        data = rng.randbytes(20)
    data = (data + rng.randbytes(rng.randrange(50)))[: rng.randrange(60)]

    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(data)

    done = run(shim, peer(answer))
    if done.returncode == 0 or not done.stdout:
        assert data[:4] == b"PWRP"  # an answer that happens to be one
    else:
        assert done.stdout.count(b'"code"') <= 1


def test_a_lost_reply_is_error_11(shim: Path, peer: Callable[[Answer], Path]) -> None:
    done = run(shim, peer(lambda connection: None))
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11


@pytest.mark.parametrize("size", [1 << 20, 4 << 20, (4 << 20) + 1, 6 << 20])
def test_stdin_is_bounded(shim: Path, peer: Callable[[Answer], Path], size: int) -> None:
    seen: list[int] = []

    def answer(connection: socket.socket) -> None:
        seen.append(len(read_request(connection)[1]))
        connection.sendall(HEAD.pack(b"PWRP", 1, 0, 0, 0))

    assert run(shim, peer(answer), b"x" * size).returncode == 0
    assert seen == [min(size, (4 << 20) + 1)]


def test_a_huge_environment_is_refused(shim: Path, peer: Callable[[Answer], Path]) -> None:
    huge = {f"CNI_{n}": "x" * 100_000 for n in range(12)}
    done = run(shim, peer(lambda connection: None), b"{}", **huge)
    assert json.loads(done.stdout)["code"] == 4


def test_a_socket_path_too_long_is_no_daemon(shim: Path) -> None:
    done = run(shim, Path("/" + "s" * 200))
    assert json.loads(done.stdout)["code"] == 11
