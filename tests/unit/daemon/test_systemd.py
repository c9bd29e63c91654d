"""What is taken for the socket that systemd passes on, and what is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# As systemd does: the descriptor is number 3, and the variables name the very process.
SCRIPT = """
import os, sys
fd, count = int(sys.argv[1]), sys.argv[2]
if fd >= 0:
    os.dup2(fd, 3)
else:
    os.closerange(3, 10)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
from cni_plugin.errors import CniError
from daemon.systemd import inherited_socket
try:
    found = inherited_socket()
except CniError as error:
    sys.exit(str(error))
print(found and found.getsockname())
"""


def taken(fd: int, count: str = "1") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", SCRIPT, str(fd), count]
    passed = [fd] if fd >= 0 else []
    return subprocess.run(argv, pass_fds=passed, capture_output=True, text=True, check=False)


def made(family: int, kind: int, path: Path | None = None) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.bind(str(path) if path else ("127.0.0.1", 0))
    return sock


def unix(folder: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    return made(socket.AF_UNIX, kind, folder / "s")


def listening(sock: socket.socket) -> socket.socket:
    sock.listen()
    return sock


def test_a_listening_stream_socket_is_taken(tmp_path: Path) -> None:
    with listening(unix(tmp_path)) as sock:
        done = taken(sock.fileno())
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/s\n"), done.stderr


OTHERS: dict[str, Callable[[Path], socket.socket]] = {
    "a non-listening AF_UNIX SOCK_STREAM socket": unix,
    "a non-listening AF_UNIX SOCK_DGRAM socket": lambda folder: unix(folder, socket.SOCK_DGRAM),
    "a listening AF_UNIX SOCK_SEQPACKET socket": lambda folder: listening(
        unix(folder, socket.SOCK_SEQPACKET)
    ),
    "a listening AF_INET SOCK_STREAM socket": lambda _folder: listening(
        made(socket.AF_INET, socket.SOCK_STREAM)
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_another_socket_is_refused(tmp_path: Path, kind: str) -> None:
    with OTHERS[kind](tmp_path) as sock:
        done = taken(sock.fileno())
    assert done.returncode == 1
    assert f"LISTEN_FDS=1, but descriptor 3 is {kind}, not a listening AF_UNIX" in done.stderr


def test_what_is_no_socket_is_refused(tmp_path: Path) -> None:
    for path, kind in ((tmp_path, "a directory"), (Path("/dev/null"), "a device")):
        fd = os.open(path, os.O_RDONLY)
        done = taken(fd)
        os.close(fd)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"LISTEN_FDS=1, but descriptor 3 is {kind}" in done.stderr
    done = taken(-1)
    assert done.returncode == 1
    assert "descriptor 3 is not open" in done.stderr


@pytest.mark.parametrize("count", ["2", "x", "-1"])
def test_another_number_of_them_is_refused(tmp_path: Path, count: str) -> None:
    with listening(unix(tmp_path)) as sock:
        done = taken(sock.fileno(), count)
    assert done.returncode == 1
    assert f"LISTEN_FDS is '{count}': podwired takes one socket" in done.stderr


@pytest.mark.parametrize("count", ["", "0"])
def test_none_is_none(tmp_path: Path, count: str) -> None:
    with listening(unix(tmp_path)) as sock:
        done = taken(sock.fileno(), count)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
