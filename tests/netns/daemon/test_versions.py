"""Shim and daemon of different versions, or one alone: a clear answer, and nothing half done."""

import shutil
import signal
from pathlib import Path

import pytest

from tests.netns.daemon.conftest import Daemon, StartDaemon
from tests.netns.daemon.frames import HEAD, VERSION, exchange, head, reply
from tests.netns.daemon.networks import CONF
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node
from tests.unit.shim.conftest import Peer, sending

VERBS = ("ADD", "CHECK", "DEL", "GC", "STATUS")


@pytest.mark.parametrize("version", [0, 7])
def test_a_daemon_of_another_version(
    node: Node, pod: Namespace, podwire_bin: Path, tmp_path: Path, version: int
) -> None:
    """Its reply says success, in a layout that nobody knows."""
    peer = Peer(tmp_path)
    reply = HEAD.pack(b"PWRP", version, 0, 0, 0)
    # It answers when it has read the request, and as soon as it has read its head.
    answers = [sending(reply), lambda connection: connection.sendall(reply)]
    try:
        for peer.answer in answers:
            for verb in VERBS:
                env = {"PODWIRE_SOCKET": str(peer.path)}
                answer = node.cni(verb, podwire_bin / "podwire", CONF, netns=pod.path, env=env)
                assert (answer.code, answer.json["code"]) == (1, 11), verb
                assert "another protocol" in answer.json["msg"]
                assert "update both" in answer.json["details"]
    finally:
        peer.close()


@pytest.mark.parametrize("version", [0, 1, 3])
def test_a_shim_of_another_version(
    near_daemon: Daemon, pod: Namespace, podwire_bin: Path, version: int
) -> None:
    """Its request may mean anything: nothing is done, and least of all a DEL."""
    program = podwire_bin / "podwire"
    added = near_daemon.cni("ADD", program, CONF, netns=pod.path)
    for verb in VERBS:
        words = ("podwire", "/x", f"CNI_COMMAND={verb}", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0")
        strings = "".join(f"{word}\0" for word in words).encode()
        data = head(len(strings), 0, version=version) + strings
        status, body = reply(exchange(near_daemon.path, data))
        assert (status, body["code"]) == (1, 11), verb
        assert f"version {version}" in body["msg"]
        assert "update both" in body["details"]
    conf = {**CONF, "prevResult": added.json}
    assert near_daemon.cni("CHECK", program, conf, netns=pod.path).code == 0
    assert near_daemon.cni("DEL", program, CONF, netns=pod.path).code == 0


@pytest.mark.parametrize("socket", ["", "dead", "file"])
def test_a_shim_without_daemon_or_python(
    node: Node, pod: Namespace, podwire_bin: Path, tmp_path: Path, near_daemon: Daemon, socket: str
) -> None:
    """No socket, one of a daemon that was killed, or something else in its place."""
    path = {"": tmp_path / "none", "dead": near_daemon.path, "file": Path("/etc/passwd")}[socket]
    near_daemon.stop(signal.SIGKILL)
    alone = Path(shutil.copy((podwire_bin / "podwire").resolve(), tmp_path / "podwire"))
    for verb in VERBS:
        answer = node.cni(verb, alone, CONF, netns=pod.path, env={"PODWIRE_SOCKET": str(path)})
        assert (answer.code, answer.json["code"]) == (1, 50 if verb == "STATUS" else 11)
        assert "daemon does not run" in answer.json["msg"]
    assert [link["ifname"] for link in pod.ip("link show")] == ["lo"]


def test_a_killed_daemons_socket_is_replaced(
    near_daemon: Daemon, start_daemon: StartDaemon
) -> None:
    near_daemon.stop(signal.SIGKILL)
    start_daemon(near_daemon.node, path=near_daemon.path)
    assert reply(exchange(near_daemon.path, VERSION))[0] == 0
