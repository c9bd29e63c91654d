"""Two probers on the loopback: they reach each other, and what others send changes nothing."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config.schema import HealthSettings
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.model import Desired
from daemon.probes.prober import Prober, describe_overload
from daemon.probes.protocol import Packet, render
from daemon.routing.planner import Planner
from tests.unit.daemon.clusters import cluster, host_state, node, planned, settings
from tests.unit.ports import free_port

NODES = {f"node-{n}": node(n, f"127.0.0.{n}") for n in (1, 2)}
DEADLINE = 60.0


def plan(me: str, *peers: str) -> Desired:
    """A plan without routes: peers are probed at their own addresses."""
    desired = planned(Planner(settings()), cluster(node(1), node(2)), host_state(), ())
    return replace(
        desired, me=NODES[me], nodes=NODES, peers=dict.fromkeys(peers, ()), device_addresses=()
    )


@pytest.fixture
def port() -> int:
    return free_port(socket.SOCK_DGRAM, "127.0.0.1")


@pytest.fixture
def start(port: int, tmp_path: Path) -> Iterator[Callable[[str, str], Prober]]:
    with ExitStack() as started:

        def make(me: str, peer: str) -> Prober:
            wanted = HealthSettings(port=port, interval=1, budget=50)
            prober = Prober(wanted, 8472, Log(), Journal(tmp_path / me, MIN_BYTES))
            prober.start()
            started.callback(prober.stop)
            prober.update(plan(me, peer))
            return prober

        yield make


def eventually(check: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not check():
        assert time.monotonic() < until, "did not become true"
        time.sleep(0.05)


Start = Callable[[str, str], Prober]


def test_two_probers_reach_each_other_until_one_ends(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = start("node-1", "node-2"), start("node-2", "node-1")
    eventually(lambda: one.report.established == two.report.established == 1)
    [health] = one.peers()
    assert (health.name, 0 <= (health.rtt or -1) < 1) == ("node-2", True)
    assert one.counts.sent >= one.counts.answered > 0
    assert two.counts.served > 0
    assert (one.counts.dropped, one.terminated) == (0, 0)
    assert two.stop()
    eventually(lambda: one.report.failed == 1)
    [trouble] = one.report.troubles
    assert (trouble.node, trouble.reason) == ("node-2", "daemon-gone")
    assert one.terminated == 1
    assert "failed peer node-2: daemon-gone: its kernel" in capfd.readouterr().err


def test_a_peer_that_leaves_the_plan_is_gone(start: Start) -> None:
    one, _two = start("node-1", "node-2"), start("node-2", "node-1")
    eventually(lambda: one.report.established == 1)
    one.update(plan("node-1"))
    eventually(lambda: one.report.established == 0)
    assert one.peers() == ()


def test_invalid_datagrams_are_dropped_and_counted(start: Start, port: int) -> None:
    one, _two = start("node-1", "node-2"), start("node-2", "node-1")
    eventually(lambda: one.report.established == 1)
    served = one.counts.served
    probe = render(Packet(False, 48, 7), 4)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
        other.bind(("127.0.0.2", 0))  # a peer's address, but another port
        other.sendto(probe, ("127.0.0.1", port))
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as stranger:
        stranger.bind(("127.0.0.3", port))
        stranger.sendto(probe, ("127.0.0.1", port))
        stranger.sendto(b"x", ("127.0.0.1", port))
        eventually(lambda: one.counts.dropped == 3)
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(100)
    eventually(lambda: one.report.established == 1)
    assert one.counts.served >= served


def test_a_port_in_use_is_reported(port: int, start: Start) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("127.0.0.1", port))
        one = start("node-1", "node-2")
        eventually(lambda: one.report.fault != "")
        assert one.report.fault.startswith("peers are not probed: UDP port")
    eventually(lambda: one.report.fault == "")


def test_an_error_restarts_the_prober(
    start: Start, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("daemon.probes.prober._RESTART", 0.1)
    one, two = start("node-1", "node-2"), start("node-2", "node-1")
    eventually(lambda: one.report.established == 1)
    broken = plan("node-1", "node-3")  # which is no node
    one.update(broken)
    eventually(lambda: one.report.fault == "peers are not probed: KeyError('node-3')")
    one.update(plan("node-1", "node-2"))
    eventually(lambda: one.report.established == 1 and one.report.fault == "")
    assert capfd.readouterr().err.count("the prober restarts: KeyError('node-3')") == 1
    assert two.report.fault == ""


def test_an_overload_is_described_with_its_address() -> None:
    assert "more datagrams arrive at [fd00::1]:8473 than" in describe_overload("fd00::1", 8473)
    assert "more datagrams arrive at 10.0.0.1:8473 than" in describe_overload("10.0.0.1", 8473)
