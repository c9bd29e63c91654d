"""Files of the daemon that are removed under it come back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netns.daemon.conftest import Daemon, StartDaemon
from tests.netns.daemon.networks import CONF
from tests.netns.daemon.test_stop import eventually
from tests.pytest_netns import Namespace
from tests.pytest_netns.node import Node


@pytest.fixture
def routing_daemon(node: Node, start_daemon: StartDaemon, tmp_path: Path) -> Daemon:
    """One that keeps routes, with its files below the test's folder."""
    nodes, conf = tmp_path / "nodes.yaml", tmp_path / "podwired.yaml"
    nodes.write_text("nodes: [{name: a, addresses: [192.0.2.1], podCIDRs: [10.244.1.0/24]}]\n")
    conf.write_text(f"node: a\nsource: {{static: {nodes}}}\nhealth: false\nmetrics: false\n")
    path = tmp_path / "run" / "s"
    return start_daemon(node, path=path, words=["run", "--config", str(conf)])


@pytest.mark.parametrize("names", [["s", "status.json", "status.json.lock"], ["status.json.lock"]])
def test_the_folder_of_the_socket_is_emptied(
    routing_daemon: Daemon, pod: Namespace, podwire_bin: Path, names: list[str]
) -> None:
    daemon, folder = routing_daemon, routing_daemon.path.parent
    files = {"s", "status.json", "status.json.lock"}
    eventually(lambda: {path.name for path in folder.iterdir()} == files)
    for name in names:
        (folder / name).unlink()
    if len(names) == len(files):
        folder.rmdir()
    eventually(lambda: folder.exists() and {path.name for path in folder.iterdir()} >= files)
    eventually(lambda: daemon.log.count(" serving ") == 2)
    assert "was removed: podwired restarts" in daemon.log
    assert daemon.cni("ADD", podwire_bin / "podwire", CONF, netns=pod.path).code == 0
    eventually(lambda: "ADD done" in daemon.log)
    assert daemon.cni("DEL", podwire_bin / "podwire", CONF, netns=pod.path).code == 0
    assert daemon.stop()[0] == 0


def test_a_status_that_was_removed_is_written_again(routing_daemon: Daemon) -> None:
    status = routing_daemon.path.with_name("status.json")
    eventually(status.exists)
    status.unlink()
    eventually(status.exists)
    assert routing_daemon.log.count(" serving ") == 1


def test_the_call_that_finds_the_store_damaged_is_carried_out(
    daemon: Daemon, node: Node, pod: Namespace, podwire_bin: Path
) -> None:
    """With the namespace that came with it: the shim passes it once."""
    program = podwire_bin / "podwire"
    node.run(["mkdir", "-p", "/var/lib/podwire"])
    node.run(["tee", "/var/lib/podwire/podwire.db"], stdin="damage" * 1000)
    added = daemon.cni("ADD", program, CONF, netns=pod.path)
    assert added.code == 0, added
    eventually(lambda: "was damaged" in daemon.log)
    assert daemon.cni("DEL", program, CONF, netns=pod.path).code == 0
