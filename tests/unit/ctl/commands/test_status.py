"""`podwirectl status`: exit status, table and JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from daemon.status import NodeStatus, Refused, StatusFile
from tests.unit.ctl.conftest import Run

GOOD = NodeStatus(
    "node-1", "vxlan", "static /etc/podwire/nodes.yaml",
    peers=2, wanted=6, in_sync=6, mtu=1450, underlay="192.0.2.11 by eth0",
    prefixes=("10.244.1.0/24", "fd00:10:244:1::/64"),
)  # fmt: skip


@pytest.fixture
def publish(tmp_path: Path) -> Callable[[NodeStatus], StatusFile]:
    def write(status: NodeStatus) -> StatusFile:
        file = StatusFile(tmp_path / "run" / "status.json")
        file.write(status)
        return file

    return write


def test_a_node_in_sync(
    run: Run, config: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    with closing(publish(GOOD)):
        status, out, err = run("status", "--config", config)
    assert (status, err) == (0, "")
    assert "node        node-1 is in sync\n" in out
    assert "back end    vxlan, pods' MTU 1450\n" in out
    assert "underlay    192.0.2.11 by eth0\n" in out
    assert "peers       2\n" in out
    assert "entries     6 of 6 as planned\n" in out
    assert f"ago by pid {os.getpid()}" in out
    assert "!" not in out


BAD = NodeStatus(
    "node-1", "vxlan", "static", peers=3, wanted=9, in_sync=7,
    refused=(Refused("node-3", "10.244.2.0/24", "node-2 has it"),),
    faults={"source": "nodes.yaml:8: broken"},
    last_error="no buffer\x1b space", last_error_time=1.0,
)  # fmt: skip


def test_a_node_that_is_not_in_sync(
    run: Run, config: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    with closing(publish(BAD)):
        status, out, _err = run("status", "--config", config)
    assert status == 1
    assert "node-1 is NOT in sync" in out
    assert "!           2 of 9 entries are not as planned\n" in out
    assert "!           the last good state is in use: nodes.yaml:8: broken\n" in out
    assert "no buffer\\x1b space (" in out
    assert out.endswith("\nNODE    REFUSED        WHY\nnode-3  10.244.2.0/24  node-2 has it\n")


def test_status_for_programs(
    run: Run, config: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    with closing(publish(BAD)):
        status, out, _err = run("status", "--config", config, "-o", "json")
    assert status == 1
    said: dict[str, Any] = json.loads(out)
    assert (said["inSync"], said["running"], said["pid"]) == (False, True, os.getpid())
    assert (said["node"], said["backend"], said["peers"]) == ("node-1", "vxlan", 3)
    assert (said["wanted"], said["entriesInSync"]) == (9, 7)
    assert said["refused"] == [
        {"node": "node-3", "prefix": "10.244.2.0/24", "why": "node-2 has it"}
    ]
    assert said["faults"]["source"] == "nodes.yaml:8: broken"
    assert len(said["troubles"]) == 3
    with closing(publish(GOOD)):
        status, out, _err = run("status", "--config", config, "-o", "json")
    assert status == 0
    assert json.loads(out)["inSync"] is True


def test_no_daemon_says_what_to_do(run: Run, config: Path) -> None:
    status, out, err = run("status", "--config", config)
    assert (status, out) == (2, "")
    assert "status.json" in err
    assert "podwired run" in err


def test_a_daemon_that_was_killed_is_not_in_sync(
    run: Run, config: Path, tmp_path: Path, publish: Callable[[NodeStatus], StatusFile]
) -> None:
    path = tmp_path / "run" / "status.json"
    with closing(publish(GOOD)):
        content = path.read_bytes()
    path.write_bytes(content)  # as kill -9 leaves it
    status, out, err = run("status", "--config", config)
    assert status == 2
    assert "NOT in sync" in out
    assert "podwired run" in err


@pytest.mark.parametrize("shift", [-3600.0, 3600.0])
def test_a_daemon_that_is_stuck_is_not_in_sync(
    run: Run,
    config: Path,
    tmp_path: Path,
    publish: Callable[[NodeStatus], StatusFile],
    shift: float,
) -> None:
    path = tmp_path / "run" / "status.json"
    with closing(publish(GOOD)):
        raw = json.loads(path.read_bytes())
        path.write_text(json.dumps({**raw, "uptime": raw["uptime"] + shift}))
        status, out, _err = run("status", "--config", config)
    assert status == 1
    assert "the daemon has not written for" in out


def test_a_broken_configuration_is_no_status(run: Run, config: Path) -> None:
    config.write_text("sauce: x\n")
    status, _out, err = run("status", "--config", config)
    assert status == 2
    assert "podwired.yaml:1: sauce: unknown key" in err
    status, _out, err = run("history", "--config", config)
    assert status == 1
    assert "podwired.yaml:1: sauce: unknown key" in err
