"""The shim under AddressSanitizer: what it sends, and what it makes of its caller's side."""

import json
import os
import socket
from pathlib import Path

import pytest

from tests.unit.shim.conftest import HEAD, Peer, read_request, replying, run


def test_a_call_goes_through(shim: Path, peer: Peer) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def answer(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(HEAD.pack(b"PWRP", 1, 7, 5, 3) + b"hello" + b"err")

    stdin = os.urandom(300_000)
    peer.answer = answer
    done = run(shim, peer.path, stdin, CNI_ARGS="A=B", OTHER="x", CNI_NETNS="/no/such")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"hello", b"err")
    strings, sent = seen[0]
    assert sent == stdin
    assert strings.split(b"\0")[0] == b"podwire"
    assert b"CNI_ARGS=A=B\0" in strings
    assert b"OTHER" not in strings


@pytest.mark.parametrize("size", [0, 1 << 20, 4 << 20, (4 << 20) + 1, 6 << 20])
def test_stdin_is_bounded(shim: Path, peer: Peer, size: int) -> None:
    seen: list[int] = []

    def answer(connection: socket.socket) -> None:
        seen.append(len(read_request(connection)[1]))
        connection.sendall(HEAD.pack(b"PWRP", 1, 0, 0, 0))

    peer.answer = answer
    assert run(shim, peer.path, b"x" * size).returncode == 0
    assert seen == [min(size, (4 << 20) + 1)]


def test_a_huge_environment_is_refused(shim: Path, peer: Peer) -> None:
    peer.answer = lambda connection: None
    huge = {f"CNI_{n}": "x" * 100_000 for n in range(12)}
    assert json.loads(run(shim, peer.path, b"{}", command=(), **huge).stdout)["code"] == 4


@pytest.mark.parametrize("length", [106, 107, 108, 200, 5000])
def test_a_socket_path_without_daemon(shim: Path, length: int) -> None:
    done = run(shim, "/" + "s" * (length - 1))
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11


@pytest.mark.parametrize("path", ["s", "./s", "@s"])
def test_the_socket_path_must_be_absolute(shim: Path, path: str) -> None:
    done = run(shim, path, CNI_COMMAND="DEL")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["code"] == 4
    assert "PODWIRE_SOCKET" in answer["msg"]


def test_closed_stdin_is_an_error(shim: Path, peer: Peer) -> None:
    peer.answer = lambda connection: None
    done = run(shim, peer.path, command=("bash", "-c", 'exec "$0" <&-'))
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert (answer["code"], answer["msg"]) == (5, "cannot read stdin: Bad file descriptor")


@pytest.mark.parametrize(
    ("closed", "status"), [(">&-", 1), ("2>&-", 0), (">&- 2>&-", 1), ("</dev/null >&- 2>&-", 1)]
)
def test_closed_output_is_not_the_socket(shim: Path, peer: Peer, closed: str, status: int) -> None:
    """A descriptor that the caller closed is the number of the next that is opened."""
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        replying(b"{}", err=b"e" * 10)(connection)
        try:
            seen.append(connection.recv(100))
        except ConnectionResetError:  # it left without reading all of the reply
            seen.append(b"")

    peer.answer = answer
    command = ("bash", "-c", f'exec "$0" {closed}')
    done = run(shim, peer.path, command=command, CNI_NETNS="/proc/self/ns/net")
    assert done.returncode == status
    assert seen == [b""]
