"""A scrape: what is read for it, how it is rendered, and what it does where something is broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from daemon.cni_server.call_counters import Tally
from daemon.journal import MIN_BYTES, Journal
from daemon.metrics import families as f
from daemon.metrics.collector import Collector, Sources
from daemon.metrics.exposition import Exposition
from daemon.metrics.families import FAMILIES
from daemon.metrics.http import Request
from daemon.metrics.serving import answer_request
from daemon.metrics.standing import TURN_MAX, answer_alive, answer_ready
from daemon.model import Desired
from daemon.routing.counters import Counts, Seen
from daemon.routing.planner import Planner
from daemon.status import NodeStatus
from ipam.store import open_store
from ipam.transaction import Owner
from kernel.nftables.dns_counters import stop_counting_dns
from kernel.nftables.table import load_skeleton
from tests import ROOT
from tests.unit.cni_plugin import namespaces
from tests.unit.daemon.clusters import cluster, facts, node, settings

GOOD = NodeStatus("node-1", "vxlan", "static", peers=1)
PARTS = {("ipam",): 0, ("dns",): 0}


@pytest.fixture(scope="module", autouse=True)
def _own_network() -> Iterator[None]:
    with namespaces.elsewhere():
        yield


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """A daemon that has turned once."""
    wanted = settings(f"dataDir: {tmp_path}")
    made = Sources(wanted, Tally(2), Counts(), Journal(tmp_path / "journal", MIN_BYTES))
    made.counts.turn(0.0, Seen(GOOD, cluster(node(1), node(2)), plan(), None))
    return made


def plan() -> Desired:
    return Planner(settings()).plan(cluster(node(1), node(2)), facts(), ())


def test_addresses_are_those_of_the_store(sources: Sources, tmp_path: Path) -> None:
    collector = Collector(sources)
    own = ("podwire", "ipv4")
    assert collector.read()[f.HELD] == {own: 0}
    assert not (tmp_path / "podwire.db").exists()  # looking makes none
    with open_store(tmp_path) as store, store.transaction() as tx:
        tx.insert(Owner("podwire", "c1", "eth0"), ip_address("10.244.1.5"), 1)
    values = collector.read()
    assert (values[f.HELD], values[f.SPACE]) == ({own: 1}, {own: 253})
    assert values[f.UNREAD] == PARTS


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_store_costs_its_part_alone(
    sources: Sources, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "podwire.db").write_bytes(content)
    collector = Collector(sources)
    for times in (1, 2):
        values = collector.read()
        assert f.HELD not in values
        assert values[f.UNREAD]["ipam",] == times
        assert values[f.READY] == {(): 1.0}
    assert (tmp_path / "podwire.db").read_bytes() == content


def test_a_process_that_died_is_seen(sources: Sources) -> None:
    collector = Collector(sources)
    assert collector.read()[f.CALL_PROCESSES] == {("serving",): 2, ("dead",): 0}
    sources.tally.bury(1)
    assert collector.read()[f.CALL_PROCESSES] == {("serving",): 1, ("dead",): 1}


def test_a_writer_keeps_no_scrape_out(sources: Sources, tmp_path: Path) -> None:
    with open_store(tmp_path) as store, store.transaction():
        assert f.HELD in Collector(sources).read()


def test_dns_is_counted_once_there_is_a_table(sources: Sources) -> None:
    collector = Collector(sources)
    assert f.DNS_QUERIES not in collector.read()
    load_skeleton("inet")
    values = collector.read()
    assert (values[f.DNS_QUERIES], values[f.DNS_ANSWERS]) == ({(): 0}, {(): 0})
    assert stop_counting_dns() is True
    assert stop_counting_dns() is False
    assert values[f.UNREAD] == PARTS


ACCEPTED = {
    "": "text/plain; version=0.0.4; charset=utf-8",
    "text/html": "text/plain; version=0.0.4; charset=utf-8",
    "application/openmetrics-text; version=1.0.0": "application/openmetrics-text; version=1.0.0",
    "application/openmetrics-text; version=x": "text/plain",
    "text/plain; version=\u00e9.1": "text/plain",
}


@pytest.mark.parametrize("accept", ACCEPTED)
def test_the_format_is_the_one_that_is_asked_for(sources: Sources, accept: str) -> None:
    content_type, body = Exposition(Collector(sources).read).render(accept)
    assert content_type.startswith(ACCEPTED[accept])
    assert (b"# EOF" in body) == content_type.startswith("application/")
    assert b"podwire_ready 1.0\n" in body


@given(st.text(max_size=60))
def test_no_accept_header_breaks_a_scrape(accept: str) -> None:
    for before in ("", "text/plain;", "application/openmetrics-text;version="):
        _content_type, body = Exposition(dict).render(before + accept)
        assert b"process_" in body


def test_what_is_rendered_is_what_was_read(sources: Sources) -> None:
    sources.tally.begin(0, "ADD")
    sources.tally.end(0, "ADD", 0, 0.004)
    _content_type, body = Exposition(Collector(sources).read).render("")
    found = {family.name: family for family in text_string_to_metric_families(body.decode())}
    values = Collector(sources).read()
    for family in FAMILIES:
        assert (family in values) == (family.name + _INFO.get(family.kind, "") in found)
    seconds = found["podwire_cni_call_duration_seconds"]
    assert seconds.documentation == f.CALL_SECONDS.help
    mine = {"verb": "ADD", "result": "success"}
    assert [s.value for s in seconds.samples if s.labels == {**mine, "le": "0.0025"}] == [0]
    assert [s.value for s in seconds.samples if s.labels == {**mine, "le": "0.005"}] == [1]
    assert [s.value for s in seconds.samples if s.labels == mine] == [1, pytest.approx(0.004)]
    [info] = found["podwire_info"].samples
    assert info.labels == {
        "version": info.labels["version"], "node": "node-1", "backend": "vxlan", "source": "static",
    }  # fmt: skip


_INFO = {"info": "_info"}


def test_paths(sources: Sources) -> None:
    exposition = Exposition(Collector(sources).read)

    def ask(path: str) -> int:
        return answer_request(exposition, sources.counts, Request("GET", path)).status

    assert [ask(path) for path in ("/metrics", "/healthz", "/readyz")] == [200, 200, 200]
    for path in ("/", "/metrics/", "/healthz/", "/readyz/", "/healthz/../metrics"):
        assert ask(path) == 404


def test_a_loop_that_stands_still_is_not_alive() -> None:
    counts = Counts()
    counts.turned = 100.0
    assert answer_alive(counts, 100.0 + TURN_MAX).status == 200
    late = answer_alive(counts, 101.0 + TURN_MAX)
    assert (late.status, late.body) == (503, b"the routing loop has not turned for 31 s\n")


def test_a_node_is_ready_as_status_says() -> None:
    counts = Counts()
    assert answer_ready(counts).status == 503
    counts.turn(0.0, Seen(GOOD, None, None, None))
    assert answer_ready(counts).status == 200
    bad = NodeStatus("node-1", "vxlan", "static", fault="no\nlink \udcff")
    counts.turn(0.0, Seen(bad, None, None, None))
    answer = answer_ready(counts)
    assert (answer.status, answer.body) == (503, b"this node is not ready: no\nlink \\udcff\n")


def test_a_daemon_that_nobody_scrapes_loads_no_library_for_it() -> None:
    code = (
        "import daemon.metrics.serving, daemon.routing.thread, sys; print('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    loaded = set(done.stdout.decode().split())
    assert "daemon.metrics.collector" in loaded
    assert not {"prometheus_client", "http", "http.server", "ssl"} & loaded
