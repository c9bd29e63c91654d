"""STATUS of the daemon's own network follows the state of its routes."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from daemon.cni_server.readiness import SIZE, Readiness
from daemon.status import NodeStatus, Refused

GOOD = NodeStatus("node-1", "vxlan", "static", peers=1, wanted=3, in_sync=3)


def code(readiness: Readiness, network: str = "podwire") -> int:
    fault = readiness.fault(network)
    return fault.code if fault else 0


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (GOOD, 0),
        (replace(GOOD, fault="node-1 is not in the list"), 50),
        (replace(GOOD, fault="no address", in_sync=0), 50),
        (replace(GOOD, in_sync=2), 0),
        (replace(GOOD, refused=(Refused("a", "b", "c"),)), 0),
        (replace(GOOD, faults={"source": "nodes.yaml:3"}), 0),
        (replace(GOOD, last_error="over"), 0),
        (replace(GOOD, wanted=0, in_sync=0), 0),
    ],
)
def test_the_code_follows_the_status(status: NodeStatus, expected: int) -> None:
    readiness = Readiness("podwire")
    assert code(readiness) == 50
    assert readiness.unready
    readiness.publish(status)
    assert code(readiness) == expected
    assert bool(readiness.unready) == (expected == 50)
    readiness.publish(GOOD)
    assert code(readiness) == 0


def test_another_network_needs_no_routes() -> None:
    readiness = Readiness("podwire")
    assert code(readiness, "bridged") == 0
    readiness.publish(replace(GOOD, fault="x"))
    assert code(readiness, "bridged") == 0


def test_what_is_wrong_is_said() -> None:
    readiness = Readiness("podwire")
    readiness.publish(replace(GOOD, fault="eth0 has no address of node-1"))
    fault = readiness.fault("podwire")
    assert fault is not None
    assert "eth0 has no address of node-1" in fault.msg
    assert "podwirectl status" in fault.details


def test_messages_are_read_whole_while_they_are_written() -> None:
    """Without a lock: one of the messages, never parts of two."""
    readiness = Readiness("podwire")
    faults = [chr(ord("a") + n) * (n * 39 + 1) for n in range(26)]
    pid = os.fork()
    if pid == 0:
        for _ in range(400):
            for text in faults:
                readiness.publish(replace(GOOD, fault=text))
        os._exit(0)
    seen = set()
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        fault = readiness.fault("podwire")
        assert fault is not None
        seen.add(fault.msg.rpartition(": ")[2])
    assert seen <= {"podwired has just started to make routes", *faults}
    assert len(seen) > 1


def test_a_long_fault_is_cut() -> None:
    readiness = Readiness("podwire")
    readiness.publish(replace(GOOD, fault="\U0001f600" * SIZE))
    fault = readiness.fault("podwire")
    assert fault is not None
    assert fault.msg.count("\U0001f600") == 1000


def test_nothing_is_missing_where_the_daemon_makes_no_routes() -> None:
    readiness = Readiness()
    assert "just started" in readiness.unready
    readiness.needs_routes = False
    assert readiness.unready == ""
