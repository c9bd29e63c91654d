"""What the metrics read, and what they leave out where something is broken."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from daemon.cni_server.call_counters import CallCounters
from daemon.journal import MIN_BYTES, Journal, Record
from daemon.log import Log
from daemon.metrics import families as f
from daemon.metrics.collector import (
    Collector,
    Shares,
    Sources,
    Values,
    find_unreachable,
    read_calls,
    read_peers,
    read_policy,
    read_probes,
    read_source,
    read_status,
    read_usage,
    read_work,
)
from daemon.metrics.families import FAMILIES
from daemon.model import Desired, Histogram, SourceActivity
from daemon.policy.model import PolicyCounts
from daemon.probes.prober import ProbeCounts
from daemon.probes.report import HealthReport, PeerHealth, Reason, State
from daemon.routing.counters import BOUNDS, KINDS, Counts, Seen, kind_of
from daemon.routing.planner import Planner
from daemon.routing.reporter import Reporter
from daemon.status import NodeStatus
from ipam.store import open_store
from ipam.transaction import Owner
from ipam.usage import Usage
from kernel.limits import Level
from kernel.nftables.dns_counters import stop_counting_dns
from kernel.nftables.ruleset import NODE
from kernel.nftables.table import load
from tests import ROOT
from tests.unit.cni_plugin import namespaces
from tests.unit.daemon.clusters import cluster, host_state, node, planned, settings

GOOD = NodeStatus("node-1", "vxlan", "static", peers=2, wanted=6, in_sync=6, mtu=1450)
DROPPED = {"vxlan": 3, "probes": 2, "limited": 0, "pods": 1}
PARTS = {("ipam",): 0, ("dns",): 0}


@pytest.fixture(scope="module", autouse=True)
def _own_network() -> Iterator[None]:
    with namespaces.elsewhere():
        yield


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """A daemon whose routing loop has had an iteration."""
    wanted = settings(f"dataDir: {tmp_path}")
    made = Sources(wanted, CallCounters(2), Counts(), Journal(tmp_path / "journal", MIN_BYTES))
    made.counts.note_iteration(0.0, Seen(GOOD, cluster(node(1), node(2)), plan("", ""), None))
    return made


def plan(*cidrs: str) -> Desired:
    nodes = [node(n + 1, cidrs=c) for n, c in enumerate(cidrs)]
    return planned(Planner(settings()), cluster(*nodes), host_state(), ())


def test_addresses_are_those_of_the_store(sources: Sources, tmp_path: Path) -> None:
    collector = Collector(sources)
    own = ("podwire", "ipv4")
    assert collector.read()[f.IN_USE] == {own: 0}
    assert not (tmp_path / "podwire.db").exists()  # looking makes none
    with open_store(tmp_path) as store, store.transaction() as tx:
        tx.insert(Owner("podwire", "c1", "eth0"), ip_address("10.244.1.5"), 1)
    values = collector.read()
    assert (values[f.IN_USE], values[f.SIZE]) == ({own: 1}, {own: 253})
    assert values[f.READ_ERRORS] == PARTS


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_store_costs_its_part_alone(
    sources: Sources, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "podwire.db").write_bytes(content)
    collector = Collector(sources)
    for times in (1, 2):
        values = collector.read()
        assert f.IN_USE not in values
        assert values[f.READ_ERRORS]["ipam",] == times
        assert values[f.READY] == {(): 1.0}
    assert (tmp_path / "podwire.db").read_bytes() == content


def test_a_process_that_died_is_seen(sources: Sources) -> None:
    collector = Collector(sources)
    assert collector.read()[f.CNI_PROCESSES] == {("serving",): 2, ("dead",): 0}
    sources.calls.drop(1)
    assert collector.read()[f.CNI_PROCESSES] == {("serving",): 1, ("dead",): 1}


def test_a_writer_keeps_no_scrape_out(sources: Sources, tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.transaction():
        assert f.IN_USE in Collector(sources).read()


def test_dns_is_counted_once_there_is_a_table(sources: Sources) -> None:
    collector = Collector(sources)
    assert f.DNS_QUERIES not in collector.read()
    load(NODE)
    values = collector.read()
    assert (values[f.DNS_QUERIES], values[f.DNS_ANSWERS]) == ({(): 0}, {(): 0})
    assert stop_counting_dns() is True
    assert stop_counting_dns() is False
    assert values[f.READ_ERRORS] == PARTS


def peer(name: str, state: State, reason: Reason = Reason.NONE, **keys: float) -> PeerHealth:
    mtu = int(keys.get("mtu", 0))
    return PeerHealth(name, state, reason, "", 0.0, keys.get("rtt"), mtu)


def test_pending_allocations_are_adds_in_flight() -> None:
    calls = CallCounters(1)
    for verb in ("ADD", "ADD", "DEL"):
        calls.rows[0].begin(verb)
    calls.rows[0].end("ADD", 0.2, 100)
    values = read_calls(calls.read())
    assert values[f.PENDING] == {(): 1}
    assert values[f.CALLS]["ADD", "100"] == 1
    assert values[f.CALLS]["DEL", "100"] == values[f.CALLS]["GC", "0"] == 0
    assert ("GC", "100") not in values[f.CALLS]
    failed = values[f.CALL_SECONDS]["ADD", "error"]
    assert isinstance(failed, Histogram)
    assert sum(failed.buckets) == 1
    assert failed.seconds == pytest.approx(0.2)


def test_drift_is_counted_once_however_often_its_repair_is_tried() -> None:
    counts = Counts()
    for _ in range(5):
        counts.note_drift("k", "route 10.244.7.0/24")
    counts.note_repair("k", "route 10.244.7.0/24")
    counts.note_repair("link", "link podwire-vxlan")
    assert (counts.drift_detected["route"], counts.drift_repaired["route"]) == (1, 1)
    assert (counts.drift_detected["link"], counts.drift_repaired["link"]) == (1, 1)
    counts.note_drift("k", "route 10.244.7.0/24")
    assert (counts.drift_detected["route"], counts.drift_repaired["route"]) == (2, 1)


def test_drift_that_ends_without_a_repair_is_over() -> None:
    counts = Counts()
    for key in ("a", "b"):
        counts.note_drift(key, "sysctl net/ipv4/ip_forward")
    counts.note_resolved("a")
    counts.note_resolved("a")
    assert (counts.drift_detected["sysctl"], counts.drift_repaired["sysctl"]) == (2, 1)
    counts.note_restart(GOOD)
    assert counts.drift_repaired["sysctl"] == 2


def test_every_kind_of_object_has_a_name_of_its_own_or_is_other() -> None:
    assert {kind_of(f"{kind} x") for kind in KINDS} == set(KINDS)
    assert kind_of("nftables rules") == "nftables"
    assert kind_of("anything") == kind_of("") == "other"


def test_only_iterations_that_change_something_are_timed() -> None:
    counts = Counts()
    seen = Seen(GOOD, None, None, None)
    counts.note_iteration(time.monotonic() - 9.0, seen)
    assert sum(counts.iterations.buckets) == 0
    counts.note_changes()
    counts.note_iteration(time.monotonic() - 9.0, seen)
    counts.note_iteration(time.monotonic() - 9.0, seen)
    assert [n for n, count in enumerate(counts.iterations.buckets) if count] == [BOUNDS.index(10.0)]
    assert counts.iterations.seconds == pytest.approx(9.0, abs=1.0)


def test_repairs_failures_and_records_are_counted_where_they_are_reported(tmp_path: Path) -> None:
    journal, counts = Journal(tmp_path / "journal", MIN_BYTES), Counts()
    reporter = Reporter(journal, Log("error"), counts=counts)
    reporter.report_repair("a", "route 10.0.0.0/24", "removed")
    reporter.report_repair("b", "sysctl net/ipv4/ip_forward", "changed")
    reporter.report_change("added", "link podwire-vxlan", "the plan")
    reporter.report_failure("no")
    values = read_work(counts, journal, time.monotonic())
    assert (values[f.DRIFT_DETECTED]["route",], values[f.DRIFT_REPAIRED]["sysctl",]) == (1, 1)
    assert values[f.ERRORS] == {(): 1}
    assert values[f.JOURNAL_RECORDS]["restored",] == 2
    assert values[f.JOURNAL_RECORDS]["added",] == 1
    assert values[f.JOURNAL_LOST] == {(): 0}


def test_records_that_are_lost_are_counted(tmp_path: Path) -> None:
    journal = Journal(tmp_path, MIN_BYTES)  # a folder
    journal.write([Record(0.0, "found", "x"), Record(0.0, "added", "y")])
    values = read_work(Counts(), journal, time.monotonic())
    assert values[f.JOURNAL_LOST] == {(): 2}
    assert set(values[f.JOURNAL_RECORDS].values()) == {0}


def test_a_restart_of_the_loop_is_counted_and_not_ready() -> None:
    counts = Counts()
    counts.note_restart(NodeStatus("node-1", "vxlan", "static", fault="routing fails"))
    assert counts.restarts == 1
    assert counts.seen is not None
    assert read_status(counts.seen.status)[f.READY] == {(): 0.0}


def test_the_status_is_numbers() -> None:
    values = read_status(GOOD)
    assert values[f.READY] == {(): 1.0}
    assert set(values[f.FAULT].values()) == {0.0}
    bad = NodeStatus(
        "node-1",
        "vxlan",
        "static",
        wanted=6,
        in_sync=4,
        faults={"source": "away", "pods": "2"},
    )
    values = read_status(bad)
    assert values[f.OUT_OF_SYNC] == {(): 2}
    assert {part for (part,), value in values[f.FAULT].items() if value} == {"source", "pods"}


@pytest.mark.parametrize(
    ("health", "is_fault"),
    [
        (None, False),
        (HealthReport(failed=3), False),
        (HealthReport(fault="UDP port 8473 of 192.0.2.1 is taken"), True),
        (HealthReport(dropped=9), False),
    ],
)
def test_probes_that_cannot_be_made_are_a_fault(
    health: HealthReport | None, is_fault: bool
) -> None:
    values = read_status(replace(GOOD, health=health))
    assert values[f.FAULT]["probes",] == float(is_fault)


def test_a_source_that_never_sent_anything_lags_for_ever() -> None:
    activity = SourceActivity(last_received=90.0, events=3, bytes=4096, snapshots=2)
    values = read_source(Seen(GOOD, cluster(node(1), node(2)), None, activity), now=100.0)
    assert (values[f.LAG], values[f.NODES]) == ({(): 10.0}, {(): 2})
    assert (values[f.EVENTS], values[f.RECEIVED], values[f.SNAPSHOTS]) == (
        {(): 3},
        {(): 4096},
        {(): 2},
    )
    assert read_source(Seen(GOOD, None, None, SourceActivity()), 5.0)[f.LAG] == {(): float("inf")}


def test_the_size_of_the_own_network_is_that_of_its_pod_cidrs() -> None:
    usages = [
        Usage("podwire", 4, allocated=7, resting=2, oldest=5.0, size=100),
        Usage("b", 4, 1, size=9),
    ]
    own = plan("10.244.1.0/24 fd00:10:244:1::/120").pod_cidrs
    values = read_usage(usages, "podwire", own)
    assert values[f.SIZE] == {
        ("podwire", "ipv4"): 253,
        ("podwire", "ipv6"): 254,
        ("b", "ipv4"): 9,
    }
    assert values[f.IN_USE]["podwire", "ipv4"] == 7
    assert values[f.IN_USE]["podwire", "ipv6"] == 0
    assert values[f.OLDEST] == {
        ("podwire", "ipv4"): 5.0,
        ("podwire", "ipv6"): 0.0,
        ("b", "ipv4"): 0.0,
    }


def test_peer_connections_by_state_and_reason() -> None:
    peers = [
        peer("a", State.ESTABLISHED, rtt=0.001, mtu=1450),
        peer("b", State.ESTABLISHED, rtt=0.004, mtu=1400),
        peer("c", State.ESTABLISHED, rtt=0.002),
        peer("d", State.FAILED, Reason.UNDERLAY_DOWN, rtt=9.0, mtu=68),
        peer("e", State.PENDING),
        peer("f", State.RETRYING, Reason.MTU, mtu=1392),  # once is no failure
    ]
    values = read_peers(peers)
    assert values[f.CONNECTIONS] == {
        ("pending",): 1, ("connecting",): 0, ("established",): 3, ("retrying",): 1, ("failed",): 1,
    }  # fmt: skip
    assert {r for (r,), n in values[f.DEGRADED].items() if n} == {"underlay-down"}
    assert set(values[f.DEGRADED]) == {(str(r),) for r in Reason if r}
    assert (values[f.RTT_MEDIAN], values[f.RTT_MAX]) == ({(): 0.002}, {(): 0.004})
    assert values[f.PATH_MTU] == {(): 1392}
    assert f.RTT_MAX not in read_peers([])


def test_probes_are_counted() -> None:
    counts = ProbeCounts(sent=5, answered=4, served=3, dropped=2)
    values = read_probes(counts, 7)
    assert values[f.PROBES_SENT] == {(): 5}
    assert (values[f.PROBES_ANSWERED], values[f.PROBES_SERVED]) == ({(): 4}, {(): 3})
    assert values[f.PROBES_DROPPED] == {(): 2}
    assert values[f.TERMINATED] == {(): 7}


def test_unreachable_nodes_and_the_share_of_addresses_that_they_own() -> None:
    nodes = (
        node(1),
        node(2, cidrs="10.244.2.0/24 fd00:2::/64"),
        node(3, cidrs="10.244.4.0/23 fd00:3::/64"),
        node(4, cidrs="10.244.6.0/24"),
        node("bare", "192.0.2.9", "10.244.9.0/24"),
    )
    snapshot = cluster(*nodes)
    lost = frozenset({"node-3", "node-4", "node-1", "stranger"})
    values = Shares().read(snapshot, "node-1", lost - {"node-1"})
    assert values[f.UNREACHABLE] == {(): 2}
    assert values[f.UNREACHABLE_SHARE] == {("ipv4",): 768 / 1280, ("ipv6",): 0.5}
    shares = Shares()
    for _ in range(2):
        assert shares.read(snapshot, "node-1", frozenset())[f.UNREACHABLE_SHARE] == {
            ("ipv4",): 0.0, ("ipv6",): 0.0,
        }  # fmt: skip
    assert shares.read(cluster(node(1)), "node-1", frozenset())[f.UNREACHABLE_SHARE] == {}


def test_which_peers_are_unreachable() -> None:
    desired = plan("10.244.1.0/24", "10.244.2.0/24", "fd00:3::/64")  # node-3 has no IPv6 address
    assert desired.peers["node-3"] == ()
    peers = [
        peer("a", State.FAILED, Reason.OVERLAY_BLOCKED),
        peer("b", State.RETRYING, Reason.UNDERLAY_DOWN),
        peer("c", State.FAILED, Reason.DAEMON_GONE),  # its routes stay
        peer("d", State.ESTABLISHED, Reason.ONE_WAY),
        peer("e", State.CONNECTING, Reason.UNDERLAY_DOWN),
        peer("f", State.FAILED, Reason.ONE_WAY),
    ]
    # After as many looks as a status takes: of one that is retried it says nothing.
    assert find_unreachable(desired, peers) == {"node-3", "a", "f"}
    assert find_unreachable(None, []) == set()


def test_where_podwire_routes_nothing_peers_without_entries_are_reachable() -> None:
    planner = Planner(settings("backend: none"))
    nodes = [node(n, cidrs=c) for n, c in ((1, "10.244.1.0/24"), (2, "10.244.2.0/24"))]
    refused = node(3, cidrs="192.0.2.0/25")  # the uplink's network
    desired = planned(planner, cluster(*nodes), host_state())
    assert (desired.peers, find_unreachable(desired, [])) == ({"node-2": ()}, frozenset())
    desired = planned(planner, cluster(*nodes, refused), host_state())
    assert find_unreachable(desired, []) == {"node-3"}
    desired = planned(planner, cluster(nodes[0]), host_state())
    assert find_unreachable(desired, []) == frozenset()


def test_dropped_packets_are_counted_by_reason() -> None:
    found = read_status(replace(GOOD, dropped=DROPPED))[f.DROPPED_PACKETS]
    assert found == {(reason,): count for reason, count in DROPPED.items()}


def test_every_value_has_its_labels() -> None:
    journal, counts = Journal(Path("/nowhere/journal"), MIN_BYTES), Counts()
    counts.levels = (Level("tracked connections", 3, 10, "net.netfilter.nf_conntrack_max"),)
    values: Values = {
        **read_calls(CallCounters(1).read()),
        **read_work(counts, journal, 0.0),
        **read_status(replace(GOOD, dropped=DROPPED)),
        **read_source(Seen(GOOD, None, None, SourceActivity()), 0.0),
        **read_usage([Usage("a", 4)], "", ()),
        **read_peers([peer("a", State.ESTABLISHED, rtt=0.1, mtu=1400)]),
        **read_probes(ProbeCounts(), 0),
        **read_policy(PolicyCounts(policies=2, faulty=1), SourceActivity()),
        **Shares().read(cluster(node(2)), "node-1", frozenset()),
    }
    for family, series in values.items():
        assert series
        assert all(len(labels) == len(family.labels) for labels in series), family.name
    others = {f.INFO, f.CNI_PROCESSES, f.DNS_QUERIES, f.DNS_ANSWERS, f.READ_ERRORS}
    assert set(FAMILIES) - set(values) == others


def test_a_daemon_loads_a_library_of_the_metrics_when_it_needs_it() -> None:
    loaded = _loaded_by("daemon.metrics, daemon.metrics.collector, daemon.routing.loop")
    assert "daemon.metrics.collector" in loaded
    assert not {"prometheus_client", "http", "http.server", "ssl"} & loaded
    assert "prometheus_client" not in _loaded_by("daemon.metrics.endpoint")


def _loaded_by(modules: str) -> set[str]:
    code = f"import {modules}, sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    return set(done.stdout.decode().split())
