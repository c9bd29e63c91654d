"""`podwired run` before it has anything to route."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import pytest

from daemon.commands.options import DEFAULT_CONFIG
from tests.netns.daemon.conftest import SECONDS, StartDaemon
from tests.netns.daemon.networks import CONF
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node


@pytest.fixture(autouse=True)
def no_configuration() -> None:
    assert not DEFAULT_CONFIG.exists(), "a real node's routing is not a test's business"


def test_without_a_configuration_it_serves_calls_alone(
    node: Node, pod: Namespace, start_daemon: StartDaemon, podwire_bin: Path
) -> None:
    daemon = start_daemon(node, words=["run"])
    assert f"no {DEFAULT_CONFIG}" in daemon.log
    program = podwire_bin / "podwire"
    assert daemon.cni("ADD", program, CONF, netns=pod.path).code == 0
    assert pod.ping("10.66.0.1")
    assert daemon.cni("DEL", program, CONF, netns=pod.path).code == 0
    routes = node.run(["ip", "route", "show", "table", "all", "proto", "113"]).stdout
    assert routes == ""
    status, log = daemon.stop(signal.SIGTERM)
    assert status == 0
    assert log.count("done") == 2


@pytest.mark.parametrize("command", ["run", "serve"])
def test_without_a_configuration_nothing_is_loaded_to_read_one(
    node: Node, start_daemon: StartDaemon, command: str
) -> None:
    daemon = start_daemon(node, words=[command])
    mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "/libc" in mapped
    assert "pydantic" not in mapped


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "could not be read: No such file or directory"),
        ("nodes: x\n", "podwired.yaml:1: nodes: unknown key"),
        ("node: a\nsource: {static: nodes.yaml}\n", "podwired.yaml:2: source.static is"),
        ("source: {static\nconflist:\n  name: warm # ours\n", "podwired.yaml:2"),
    ],
)
def test_with_a_configuration_that_is_wrong_it_serves_calls_until_it_is_mended(
    node: Node,
    pod: Namespace,
    start_daemon: StartDaemon,
    listener: socket.socket,
    podwire_bin: Path,
    podwired: Path,
    tmp_path: Path,
    content: str | None,
    said: str,
) -> None:
    path, program = tmp_path / "podwired.yaml", podwire_bin / "podwire"
    if content is not None:
        path.write_text(content)
    words = ["run", "--config", str(path)]
    daemon = start_daemon(node, words=words, listener=listener, path=tmp_path / "s")
    assert said in daemon.log
    assert "routes are not kept" in daemon.log
    env = {"PODWIRE_SOCKET": str(daemon.path)}
    status = node.run([podwired, "status", "--config", path], env=env, check=False)
    assert status.returncode == 1
    assert said in status.stdout
    network = "warm" if "warm" in str(content) else "podwire"
    answer = daemon.cni("STATUS", program, {**CONF, "name": network})
    assert answer.json["code"] == 50
    assert said in answer.json["msg"]
    other = {**CONF, "name": "other"}
    assert daemon.cni("STATUS", program, other).code == 0
    assert daemon.cni("ADD", program, other, netns=pod.path).code == 0

    nodes = tmp_path / "nodes.yaml"
    own = {"name": "a", "addresses": [node.address(4)], "podCIDRs": ["10.244.1.0/24"]}
    nodes.write_text(json.dumps({"nodes": [own]}))
    keys = {"node": "a", "source": {"static": str(nodes)}, "socket": str(daemon.path)}
    path.write_text(json.dumps({**keys, "conflist": {"path": f"{tmp_path}/5.conflist"}}))
    until = time.monotonic() + SECONDS
    while node.run([podwired, "status", "--config", path], check=False).returncode:
        assert time.monotonic() < until, daemon.log
        time.sleep(0.5)  # a look is an interpreter's start
    assert "beginning anew" in daemon.log
    assert daemon.cni("DEL", program, other, netns=pod.path).code == 0
    assert daemon.stop()[0] == 0


def test_who_cannot_have_its_status_file_serves_at_the_socket_that_systemd_holds(
    node: Node,
    start_daemon: StartDaemon,
    listener: socket.socket,
    podwire_bin: Path,
    podwired: Path,
    tmp_path: Path,
) -> None:
    path = tmp_path / "podwired.yaml"
    keys = {"source": {"static": "/nowhere"}, "node": "a", "statusFile": f"{path}/status"}
    path.write_text(json.dumps(keys))
    words = ["run", "--config", str(path)]
    alone = node.run([podwired, *words], check=False)
    assert alone.returncode == 1
    daemon = start_daemon(node, words=words, listener=listener, path=tmp_path / "s")
    answer = daemon.cni("STATUS", podwire_bin / "podwire", {**CONF, "name": "podwire"})
    assert answer.json["code"] == 50


def test_a_relative_path_in_the_environment_is_refused(node: Node, podwired: Path) -> None:
    env = {"PODWIRE_SOCKET": "here"}
    done = node.run([podwired, "run"], env=env, check=False)
    assert done.returncode == 1
    assert "PODWIRE_SOCKET is 'here', must be an absolute path" in done.stderr


def test_a_socket_that_runtimes_do_not_know_is_told(
    node: Node, start_daemon: StartDaemon, listener: socket.socket, tmp_path: Path
) -> None:
    usual, slow, ignored = (start_daemon(node), "go the slow way", "is ignored")
    assert slow not in usual.log
    assert usual.stop()[0] == 0
    moved = start_daemon(node, path=tmp_path / "elsewhere")
    assert f"{slow} unless the container runtime's environment has" in moved.log
    assert ignored not in moved.log
    words = ["serve", "--socket", str(tmp_path / "mine")]
    activated = start_daemon(node, words=words, listener=listener, path=tmp_path / "s")
    assert f"socket {tmp_path}/mine {ignored}: systemd's unit has its own" in activated.log
