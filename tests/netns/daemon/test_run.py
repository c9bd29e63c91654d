"""`podwired run` before it has anything to route."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from daemon.config import DEFAULT_CONFIG
from tests.netns.daemon.conftest import StartDaemon
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
    ("content", "reason"),
    [
        (None, "podwired.yaml: could not be read: No such file or directory"),
        ("nodes: x\n", "podwired.yaml:1: nodes: unknown key"),
        ("node: a\nsource: {static: nodes.yaml}\n", "podwired.yaml:2: source.static is"),
        ("source: {static\nconflist:\n  name: warm # ours\n", "podwired.yaml:2"),
        ("source: {static: /x}\nnode: a\nstatusFile: /dev/null/s\n", "status /dev/null/s cannot"),
    ],
)
def test_a_configuration_that_is_wrong_is_an_error(
    node: Node,
    pod: Namespace,
    podwire_bin: Path,
    podwired: Path,
    tmp_path: Path,
    content: str | None,
    reason: str,
) -> None:
    path, program = tmp_path / "podwired.yaml", podwire_bin / "podwire"
    if content is not None:
        path.write_text(content)
    done = node.run([podwired, "run", "--config", path], check=False)
    assert done.returncode == 1
    assert reason in done.stderr
    assert node.run(["ls", "/run/podwire"], check=False).stdout == ""
    for verb in ("ADD", "DEL"):  # the runtime does without the daemon
        assert node.cni(verb, program, CONF, netns=pod.path).code == 0


def test_a_relative_path_in_the_environment_is_refused(node: Node, podwired: Path) -> None:
    env = {"PODWIRE_SOCKET": "here"}
    done = node.run([podwired, "run"], env=env, check=False)
    assert done.returncode == 1
    assert "PODWIRE_SOCKET is 'here', must be an absolute path" in done.stderr


def test_a_socket_that_runtimes_do_not_know_is_logged(
    node: Node, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    usual, slow = start_daemon(node), "go the slow way"
    assert slow not in usual.log
    assert usual.stop()[0] == 0
    moved = start_daemon(node, path=tmp_path / "elsewhere")
    assert f"{slow} unless the container runtime's environment has" in moved.log
