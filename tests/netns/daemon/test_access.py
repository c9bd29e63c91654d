"""Root alone reaches the daemon, and neither it nor the shim takes another's socket for its own."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.daemon.conftest import SECONDS, SOCKET, Daemon
from tests.netns.daemon.frames import VERSION, exchange, reply
from tests.netns.daemon.networks import CONF
from tests.netns.daemon.test_stop import eventually
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node

NOBODY = 65534
CONNECT = """\
import socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
link.sendall(bytes.fromhex(sys.argv[2]))
print("answer", link.recv(100))
"""


def as_nobody(node: Node, *argv: str | Path) -> "subprocess.CompletedProcess[str]":
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return node.run([*nobody, *argv], check=False)


def connect_as_nobody(daemon: Daemon) -> "subprocess.CompletedProcess[str]":
    argv = ("/usr/bin/python3", "-c", CONNECT, daemon.path, VERSION.hex())
    return as_nobody(daemon.node, *argv)


def test_another_user_cannot_connect(daemon: Daemon, node: Node, podwire_bin: Path) -> None:
    assert daemon.cni("DEL", podwire_bin / "podwire", CONF).code == 0
    modes = node.run(["stat", "-c", "%a %u", SOCKET.parent, SOCKET]).stdout
    assert modes == "700 0\n600 0\n"
    assert "PermissionError" in connect_as_nobody(daemon).stderr
    assert "Permission denied" in as_nobody(node, "ls", SOCKET.parent).stderr
    assert "Permission denied" in as_nobody(node, "ls", "/var/lib/podwire").stderr


def test_another_user_learns_nothing_where_the_modes_are_loose(daemon: Daemon, node: Node) -> None:
    node.run(["chmod", "755", SOCKET.parent])
    assert "PermissionError" in connect_as_nobody(daemon).stderr
    node.run(["chmod", "666", SOCKET])
    seen = connect_as_nobody(daemon)
    # Closed at once, answered by nothing; whether the close overtakes the request is chance.
    assert seen.stdout in ("answer b''\n", "")
    assert not seen.stdout or seen.returncode == 0
    assert f"refused a caller with uid {NOBODY}" in daemon.log


def test_the_shim_of_another_user_gets_no_success(
    daemon: Daemon, node: Node, podwire_bin: Path
) -> None:
    node.run(["chmod", "755", SOCKET.parent])
    node.run(["chmod", "666", SOCKET])
    env = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}
    argv = ["setpriv", f"--reuid={NOBODY}", "--clear-groups"]
    node.run(["cp", (podwire_bin / "podwire").resolve(), "/run/shim"])
    done = node.run([*argv, "/run/shim"], stdin=b"{}", env=env, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 11


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[socket.socket]:
    """A socket at which another user listens."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        os.seteuid(NOBODY)  # SO_PEERCRED is of the moment of listen(2)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        yield listener


@pytest.mark.parametrize("verb", ["ADD", "DEL", "STATUS"])
def test_the_shim_hands_nothing_to_another_user(
    node: Node, podwire_bin: Path, pod: Namespace, stranger: socket.socket, verb: str
) -> None:
    env = {"PODWIRE_SOCKET": stranger.getsockname()}
    answer = node.cni(verb, podwire_bin / "podwire", CONF, netns=pod.path, env=env)
    assert (answer.code, answer.json["code"]) == (1, 5)
    connection, _address = stranger.accept()
    with connection:
        data, descriptors, _flags, _sender = socket.recv_fds(connection, 100, 1)
    assert (data, descriptors) == (b"", [])


def refusal(node: Node, podwired: Path, path: Path | str, *options: str) -> str:
    """Why a daemon does not start at a path."""
    env = {"PODWIRE_SOCKET": str(path)}
    done = subprocess.run(
        [*node.enter, podwired, "serve", *options],
        env=env, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr


def test_the_daemon_replaces_no_file(node: Node, podwired: Path, tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("kept")
    link, dangling, folder = tmp_path / "link", tmp_path / "dangling", tmp_path / "folder"
    link.symlink_to(file)
    dangling.symlink_to(tmp_path / "nowhere")
    folder.mkdir()
    for path in (file, link, dangling, folder):
        assert "is no socket" in refusal(node, podwired, path)
    assert file.read_text() == "kept"
    assert os.readlink(link) == str(file)


def test_the_daemon_wants_a_folder_of_roots(node: Node, podwired: Path, tmp_path: Path) -> None:
    foreign, writable = tmp_path / "foreign", tmp_path / "writable"
    for folder in (foreign, writable):
        folder.mkdir()
    os.chown(foreign, NOBODY, NOBODY)
    writable.chmod(0o777)
    for folder in (foreign, writable):
        assert "can be written by others" in refusal(node, podwired, folder / "s")
        assert list(folder.iterdir()) == []


def test_the_paths_must_be_absolute(node: Node, podwired: Path, tmp_path: Path) -> None:
    assert "absolute" in refusal(node, podwired, "podwire.sock")
    assert "absolute" in refusal(node, podwired, tmp_path / "s", "--socket", "s")
    assert "absolute" in refusal(node, podwired, tmp_path / "s", "--data-dir", "data")


def test_one_daemon_at_a_socket(near_daemon: Daemon, node: Node, podwired: Path) -> None:
    assert "another podwired answers" in refusal(node, podwired, near_daemon.path)
    assert reply(exchange(near_daemon.path, VERSION))[0] == 0


def answers(path: Path) -> bool:
    """Whether a daemon does at the socket."""
    try:
        return reply(exchange(path, VERSION))[0] == 0
    except OSError:
        return False


def test_daemons_that_start_together(node: Node, podwired: Path, tmp_path: Path) -> None:
    """One of them serves, and its socket is not another's by then."""
    path = tmp_path / "s"
    command = [*node.enter, str(podwired), "serve"]
    daemons = [
        subprocess.Popen(command, env={"PODWIRE_SOCKET": str(path)}, stderr=subprocess.DEVNULL)
        for _ in range(4)
    ]
    try:
        while sum(daemon.poll() is None for daemon in daemons) > 1:
            time.sleep(0.05)
        eventually(lambda: answers(path))  # the others end as soon as one is about to serve
    finally:
        for daemon in daemons:
            daemon.terminate()
    assert sorted(daemon.wait(SECONDS) for daemon in daemons) == [0, 1, 1, 1]
    assert not path.exists()
