"""The filter of peers follows plans: peers are admitted before routes, and dropped after them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.journal import Journal
from daemon.log import Log
from daemon.model import Desired, Node
from daemon.routing import peer_filter
from daemon.routing.peer_filter import PeerFilter
from daemon.routing.planner import Planner
from daemon.routing.reporter import Reporter
from kernel.nftables.peer_filter import PROBES_MAX
from tests.unit.cni_plugin.namespaces import elsewhere
from tests.unit.daemon.clusters import cluster, host_state, node, settings

Make = Callable[[], PeerFilter]


@pytest.fixture
def reporter(tmp_path: Path) -> Iterator[Reporter]:
    """In a namespace of its own."""
    with elsewhere():
        yield Reporter(Journal(tmp_path / "journal", 1 << 20), Log())


@pytest.fixture
def make(reporter: Reporter) -> Make:
    """Makes the filter of a daemon that starts."""
    return lambda: PeerFilter(settings(), reporter)


@pytest.fixture
def plan() -> Callable[..., Desired]:
    planner = Planner(settings())
    return lambda *nodes: planner.plan(cluster(node(1), *nodes), HOST)


HOST = host_state()
PROBE_PORT = 8473


def admitted() -> set[str]:
    """The underlay addresses that may send VXLAN."""
    listed = ["nft", "list", "set", "inet", "podwire", "peers4"]
    done = subprocess.run(listed, capture_output=True, text=True, check=False)
    elements = done.stdout.partition("elements = {")[2].partition("}")[0]
    return {word.strip() for word in elements.split(",")} - {""}


def address(of: Node) -> str:
    return str(of.address(4))


def started(kept: PeerFilter, desired: Desired) -> PeerFilter:
    """After its first plan: it is made in the second iteration."""
    assert kept.reconcile(desired) == 0
    assert kept.reconcile(desired) is None
    return kept


TWO, THREE = node(2), node(3)


def test_the_routes_of_the_first_plan_do_not_wait(make: Make, plan: Callable[..., Desired]) -> None:
    kept, desired = make(), plan(TWO)
    assert kept.reconcile(desired) == 0
    assert admitted() == set()  # nothing is filtered, so nobody is cut off
    assert kept.is_due
    assert kept.reconcile(desired) is None
    assert admitted() == {address(TWO)}
    assert not kept.is_due


def test_until_it_is_made_that_is_a_fault(reporter: Reporter, plan: Callable[..., Desired]) -> None:
    """Nor does a daemon that finds an earlier one's at work report one."""
    kept, desired = PeerFilter(settings(), reporter), plan(TWO)
    kept.reconcile(desired)
    assert reporter.faults["filter"]
    assert reporter.faults.last_error == ""
    kept.reconcile(desired)
    PeerFilter(settings(), reporter).reconcile(desired)
    assert reporter.faults["filter"] == ""


def test_a_new_peer_is_admitted_before_its_routes(make: Make, plan: Callable[..., Desired]) -> None:
    kept = started(make(), plan(TWO))
    kept.reconcile(plan(TWO, THREE))
    assert admitted() == {address(TWO), address(THREE)}
    assert not kept.is_due


def test_a_daemon_that_restarts_admits_who_came_meanwhile(
    make: Make, plan: Callable[..., Desired]
) -> None:
    started(make(), plan(TWO))
    make().reconcile(plan(TWO, THREE))
    assert admitted() == {address(TWO), address(THREE)}


def test_what_was_dropped_before_the_start_is_no_fault(
    make: Make, plan: Callable[..., Desired], reporter: Reporter
) -> None:
    started(make(), plan(TWO))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for member in (node(1), TWO):
        subprocess.run(["ip", "address", "add", address(member), "dev", "lo"], check=True)
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as flood:
        flood.bind((address(TWO), 0))
        for _ in range(4 * PROBES_MAX):
            flood.sendto(b"x", (address(node(1)), PROBE_PORT))
    assert make().count()["limited"] > 0
    assert reporter.faults["limit"] == ""


def test_a_peer_that_moves_or_leaves_is_dropped_later(
    make: Make, plan: Callable[..., Desired], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = started(make(), plan(TWO, THREE))
    moved = replace(TWO, addresses=node(7).addresses)
    desired = plan(moved)
    wait = kept.reconcile(desired)
    assert wait is not None
    assert 0 < wait <= peer_filter.RETIRE_SECONDS
    assert admitted() == {address(TWO), address(moved), address(THREE)}
    monkeypatch.setattr(peer_filter, "RETIRE_SECONDS", 0.0)
    desired = plan()
    kept.reconcile(desired)
    assert admitted() == set()
