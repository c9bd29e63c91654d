"""The shim under AddressSanitizer: what it sends, and what it makes of its caller's side."""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.unit.shim.conftest import HEAD, PROTOCOL, Peer, read_request, replying, run


def test_a_call_goes_through(shim: Path, peer: Peer) -> None:
    seen: list[tuple[bytes, bytes]] = []

    def answer(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(HEAD.pack(b"PWRP", PROTOCOL, 7, 5, 3) + b"hello" + b"err")

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
        connection.sendall(HEAD.pack(b"PWRP", PROTOCOL, 0, 0, 0))

    peer.answer = answer
    assert run(shim, peer.path, b"x" * size).returncode == 0
    assert seen == [min(size, (4 << 20) + 1)]


def test_a_slow_stdin_is_read_before_anybody_is_bothered(shim: Path, peer: Peer) -> None:
    """The daemon's patience with a request (10 s) is none of the runtime's business."""
    came: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        came.append(b"connected")
        came.append(read_request(connection)[1])
        connection.sendall(HEAD.pack(b"PWRP", PROTOCOL, 0, 0, 0))

    peer.answer = answer
    env = {"CNI_COMMAND": "ADD", "PODWIRE_SOCKET": str(peer.path), "ASAN_OPTIONS": "detect_leaks=0"}
    with subprocess.Popen([shim], stdin=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None
        process.stdin.write(b"{")
        process.stdin.flush()
        until = time.monotonic() + 30
        while unread(process.stdin.fileno()):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert read_state(process.pid) == "S"
        assert came == []
        process.stdin.write(b"}")
    assert process.returncode == 0
    assert came == [b"connected", b"{}"]


def unread(pipe: int) -> int:
    """Bytes in a pipe."""
    (count,) = struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))
    return int(count)


def read_state(pid: int) -> str:
    """A process's state once it sleeps, or after a long while."""
    for _ in range(3000):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        if state == "S":
            break
        time.sleep(0.01)
    return state


@pytest.mark.parametrize("size", [0, 1, 70_000, 4 << 20, (4 << 20) + 1, 5 << 20])
@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", ">&- 2>&-"])
def test_without_daemon_the_next_program_has_the_whole_stdin(
    shim: Path, tmp_path: Path, size: int, closed: str
) -> None:
    """Up to the limit, and a byte more, which is refused as too much."""
    program, out = tmp_path / "podwire", tmp_path / "out"
    shutil.copy(shim, program)
    (tmp_path / "python3").write_text(f'#!/bin/sh\ncat >"{out}"\necho "$@" >"{out}.words"\n')
    (tmp_path / "python3").chmod(0o755)
    stdin = os.urandom(size)
    command = ("bash", "-c", f'exec "$0" {closed}')
    assert run(program, tmp_path / "s", stdin, command=command).returncode == 0
    assert out.read_bytes() == stdin[: (4 << 20) + 1]
    words = f"-I -m cni_plugin serve podwire {program}\n"
    assert Path(f"{out}.words").read_text() == words


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
    seen: SimpleQueue[bytes] = SimpleQueue()

    def answer(connection: socket.socket) -> None:
        replying(b"{}", err=b"e" * 10)(connection)
        try:
            seen.put(connection.recv(100))
        except ConnectionResetError:  # it left without reading all of the reply
            seen.put(b"")

    peer.answer = answer
    command = ("bash", "-c", f'exec "$0" {closed}')
    done = run(shim, peer.path, command=command, CNI_NETNS="/proc/self/ns/net")
    assert done.returncode == status
    assert seen.get(timeout=30) == b""


def test_python_starts_with_a_clean_environment(shim: Path, tmp_path: Path) -> None:
    """What the loader and Python would obey is the runtime's, and is handed on by other names."""
    program, out = tmp_path / "podwire", tmp_path / "out"
    shutil.copy(shim, program)
    (tmp_path / "python3").write_text(f'#!/bin/sh\nenv -0 >"{out}"\n')
    (tmp_path / "python3").chmod(0o755)
    given = {"LD_LIBRARY_PATH": "/dir:", "PYTHONHOME": "/x", "CALLER_HOME": "a=b", "HOME": "/h"}
    plain = {"CNI_ARGS": "A=B", "PODWIRE_DATA_DIR": "/d", "PATH": "/usr/bin:/bin"}
    assert run(program, tmp_path / "s", b"{}", command=(), **given, **plain).returncode == 0
    found = dict(item.split("=", 1) for item in out.read_text().split("\0") if item)
    assert {name: found.get(f"CALLER_{name}") for name in given} == given
    assert {name: found.get(name) for name in plain} == plain
    added_by_sh = {"PWD", "OLDPWD", "SHLVL", "_"}
    left = {name for name in found if not name.startswith(("CALLER_", "CNI_", "PODWIRE_"))}
    assert left - added_by_sh == {"PATH"}


@pytest.mark.parametrize("verb", [None, ""])
def test_without_a_verb_python_answers(
    shim: Path, peer: Peer, tmp_path: Path, verb: str | None
) -> None:
    """It knows what the program says of itself, though a daemon runs. Without Python that does."""
    program, env = tmp_path / "firewall", {"PODWIRE_SOCKET": str(peer.path)}
    shutil.copy(shim, program)
    env |= {"ASAN_OPTIONS": "detect_leaks=0"} | ({} if verb is None else {"CNI_COMMAND": verb})
    peer.answer = replying(b"{}", 3)

    def call() -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run([program], env=env, input=b"{}", capture_output=True, timeout=60)

    assert call().returncode == 3
    (tmp_path / "python3").write_text('#!/bin/sh\necho "$@" >&2\ncat\n')
    (tmp_path / "python3").chmod(0o755)
    done = call()
    assert (done.returncode, done.stdout) == (0, b"{}")
    assert done.stderr == b"-I -m cni_plugin explain firewall\n"
