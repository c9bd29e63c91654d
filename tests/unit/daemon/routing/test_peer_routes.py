"""Incremental comparison against one of everything, with a kernel that is a dictionary; records."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daemon.journal import MIN_BYTES, Journal, read
from daemon.log import Log
from daemon.model import Desired
from daemon.routing.backoff import GAP
from daemon.routing.peer_routes import RETRY, EntryChange, PeerEntries, PeerRoutes, records_of
from daemon.routing.planner import Planner
from daemon.routing.reporter import Reporter
from kernel.diff import Change, Key, key_of
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Link, Neighbour, Route
from kernel.netlink.codec import NLM_F_REPLACE
from kernel.netlink.monitor import Event
from kernel.netlink.socket import Netlink
from tests.unit.cni_plugin import namespaces
from tests.unit.daemon.clusters import cluster, host_state, node, planned, settings

DEVICE = "vx"


def peer_entries(number: int, variant: int) -> tuple[Entry, ...]:
    """What leads to a peer; variants differ in where its VTEP is."""
    mac, via = f"02:00:00:00:0{variant}:{number:02x}", ip_address(f"10.0.{number}.0")
    return (
        FdbEntry(DEVICE, mac, ip_address(f"192.0.2.{number}")),
        Neighbour(DEVICE, via, mac),
        Route(
            ip_network(f"10.0.{number}.0/24"),
            DEVICE,
            via=via,
            protocol=RTPROT_PODWIRE_PEERS,
            onlink=True,
        ),
    )


def event_of(entry: Entry, *, deleted: bool = False, port: int = 99, flags: int = 0) -> Event:
    kinds = {Route: "route", Neighbour: "neighbour", FdbEntry: "fdb"}
    return Event(kinds[type(entry)], deleted, entry, port, flags)  # type: ignore[arg-type]


class EntriesMachine(RuleBasedStateMachine):
    """Plans and damage in any order; after that the kernel is as planned."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = PeerEntries(DEVICE)
        self.kernel: dict[Key, Entry] = {}
        self.peers: dict[str, tuple[Entry, ...]] = {}

    @rule(number=st.integers(1, 4), variant=st.integers(0, 2))
    def peer_comes_or_moves(self, number: int, variant: int) -> None:
        self.peers[f"node-{number}"] = peer_entries(number, variant)
        self.entries.update(self.peers)

    @rule(number=st.integers(1, 4))
    def peer_leaves(self, number: int) -> None:
        self.peers.pop(f"node-{number}", None)
        self.entries.update(self.peers)

    @rule(data=st.data())
    def something_is_removed(self, data: st.DataObject) -> None:
        if self.kernel:
            key = data.draw(st.sampled_from(sorted(self.kernel, key=repr)))
            self.entries.receive(event_of(self.kernel.pop(key), deleted=True))

    @rule(number=st.integers(1, 6), variant=st.integers(0, 3), which=st.integers(0, 2))
    def something_is_put_there(self, number: int, variant: int, which: int) -> None:
        entry = peer_entries(number, variant)[which]
        self.kernel[key_of(entry)] = entry
        self.entries.receive(event_of(entry))

    @rule(number=st.integers(1, 4))
    def a_stranger_takes_a_place(self, number: int) -> None:
        route = Route(ip_network(f"10.0.{number}.0/24"), "eth0")
        if key_of(route) in self.kernel:
            self.kernel[key_of(route)] = route
            self.entries.receive(event_of(route, flags=NLM_F_REPLACE))

    @rule()
    def everything_is_read(self) -> None:
        self.entries.reset(dict(self.kernel), "resync")

    @rule()
    def reconcile(self) -> None:
        changes, wait = self.entries.diff(lambda _key: 0.0)
        assert wait is None
        for found in changes:
            assert self.kernel.get(found.key) == found.change.observed
            self.kernel.pop(found.key, None)
            if found.change.desired is not None:
                self.kernel[found.key] = found.change.desired
        self.entries.note_applied(changes, ())
        assert self.kernel == self.desired()
        assert not self.entries.has_touched

    def desired(self) -> dict[Key, Entry]:
        return {key_of(e): e for entries in self.peers.values() for e in entries}

    @invariant()
    def it_knows_both_sides(self) -> None:
        assert self.entries.desired == self.desired()
        assert self.entries.observed == self.kernel
        missing = [k for k, e in self.desired().items() if self.kernel.get(k) != e]
        assert self.entries.out_of_sync() == len(missing)


TestPeerEntries = EntriesMachine.TestCase


def filled() -> PeerEntries:
    entries = PeerEntries(DEVICE)
    entries.update({"a": peer_entries(1, 0)})
    entries.reset({key_of(e): e for e in peer_entries(1, 0)}, "")
    return entries


def test_a_peer_that_did_not_change_is_passed_over() -> None:
    entries = PeerEntries(DEVICE)
    same = peer_entries(1, 0)
    entries.update({"a": same})
    entries.note_applied(entries.diff(lambda _key: 0.0)[0], ())
    entries.update({"a": same, "b": peer_entries(2, 0)})
    changes, _wait = entries.diff(lambda _key: 0.0)
    assert {r.node for r in changes} == {"b"}
    assert [r.cause for r in changes] == ["", "", ""]


def test_the_author_of_a_change_is_kept() -> None:
    entries = filled()
    entry = peer_entries(1, 0)[2]
    entries.receive(event_of(entry, deleted=True, port=1 << 30))
    [repair], _wait = entries.diff(lambda _key: 0.0)
    assert (repair.change.observed, repair.change.desired, repair.node) == (None, entry, "a")
    assert repair.cause == f"removed by a process (netlink port {1 << 30})"


def test_what_waits_is_done_later() -> None:
    entries = filled()
    for entry in peer_entries(1, 0):
        entries.receive(event_of(entry, deleted=True))
    changes, wait = entries.diff(lambda key: 0.5 if key[0] == "fdb" else 0.0)
    assert ([r.key[0] for r in changes], wait) == (["neighbour", "route"], 0.5)
    entries.note_applied(changes, {changes[0].key})
    assert entries.out_of_sync() == 2


@given(st.booleans(), st.booleans())
def test_what_is_not_ours_changes_nothing(deleted: bool, replaces: bool) -> None:
    entries = filled()
    fdb, neighbour, route = peer_entries(1, 0)
    assert isinstance(route, Route)
    flags = NLM_F_REPLACE * replaces
    for entry in (
        replace(fdb, link="vx2"),
        replace(neighbour, link="eth0"),
        replace(route, dst=ip_network("10.9.0.0/16"), protocol=3),
        # A late event of a device that was created again meanwhile.
        *([replace(route, link="")] if deleted else []),
    ):
        entries.receive(event_of(entry, deleted=deleted, flags=flags))
    assert entries.diff(lambda _key: 0.0) == ([], None)


def change_of(
    observed: Entry | None, desired: Entry | None, node: str = "b", cause: str = ""
) -> EntryChange:
    change: Change[Entry] = Change(desired, observed)
    return EntryChange(key_of(change.noun), change, node, cause)


def test_a_peer_that_joins_is_one_record() -> None:
    [record] = records_of([change_of(None, e, "node-2") for e in peer_entries(2, 0)])
    assert (record.action, record.object) == ("added", "node node-2 10.0.2.0/24")
    assert (record.before, record.after) == ("", "via 10.0.2.0 dev vx onlink proto 113")
    assert record.cause == "the plan"


def test_peers_that_leave_or_move() -> None:
    old, new = peer_entries(2, 0), peer_entries(3, 1)
    gone = [change_of(e, None, "a") for e in old]
    moved = [change_of(e, None, "b") for e in old] + [change_of(None, e, "b") for e in new]
    records = {r.object: r.action for r in records_of([*gone, *moved])}
    assert records == {
        "node a 10.0.2.0/24": "removed",
        "node b 10.0.2.0/24 10.0.3.0/24": "changed",
    }


def test_repairs_are_recorded_one_by_one_unless_there_are_many() -> None:
    few = [change_of(None, e, "b", "removed by pid 7") for e in peer_entries(2, 0)]
    assert [r.action for r in records_of(few)] == ["restored"] * 3
    assert {r.cause for r in records_of(few)} == {"removed by pid 7"}
    many = [change_of(None, e, f"n{n}", "lost") for n in range(1, 101) for e in peer_entries(n, 0)]
    records = records_of(many)
    assert len(records) == 100
    assert {(r.action, r.cause) for r in records} == {("restored", "lost")}
    assert "node n7 10.0.7.0/24" in {r.object for r in records}


def test_strays_are_removed_and_bounded() -> None:
    [record] = records_of([change_of(peer_entries(9, 0)[2], None, "", "added by pid 7")])
    assert (record.action, record.object, record.after) == ("removed", "route 10.0.9.0/24", "")
    strays = [change_of(e, None, "") for n in range(200) for e in peer_entries(n, 0)]
    assert len(records_of(strays)) == 65


# -- with a kernel


@pytest.fixture
def namespace() -> Iterator[None]:
    """An empty network with a bridge br0, 192.0.2.1/24."""
    with namespaces.elsewhere():
        made = "link add br0 type bridge\nlink set br0 up\naddr add 192.0.2.1/24 dev br0\n"
        subprocess.run(["ip", "-batch", "-"], input=made, text=True, check=True)
        yield


def ip(words: str) -> str:
    """The output of iproute2 in the calling thread's namespace."""
    return subprocess.run(["ip", *words.split()], capture_output=True, text=True, check=True).stdout


def plan_with(*cidrs: str) -> Desired:
    """A plan with one peer, node-2, on br0."""
    peer = node("node-2", "192.0.2.2", " ".join(cidrs) or "10.244.2.0/24")
    host = host_state(links=(Link("br0", mtu=1500),), more=[("br0", "198.51.100.1/24")])
    plan = planned(
        Planner(settings("backend: host-gw\nhealth: false")), cluster(node(1), peer), host
    )
    entries = tuple(replace(e, link="br0") for e in plan.peers["node-2"] if isinstance(e, Route))
    return replace(plan, peers={"node-2": entries})


@pytest.mark.usefixtures("namespace")
def test_routes_are_made_kept_and_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log())
    with Netlink() as nl:
        routes = PeerRoutes(nl, DEVICE, reporter)
        ip("route add 10.9.0.0/24 via 192.0.2.9 proto 113")  # what an earlier daemon left
        assert [str(e.dst) for e in routes.adopt() if isinstance(e, Route)] == ["10.9.0.0/24"]
        desired = plan_with()
        assert routes.reconcile(desired, has_device=False) is None
        assert ip("route show proto 113") == "10.244.2.0/24 via 192.0.2.2 dev br0 \n"
        assert "changed entries count=2" in capfd.readouterr().err
        ip("route del 10.244.2.0/24")
        assert routes.reconcile(desired, has_device=False) is None  # no event, no comparison
        routes.resync("found")
        assert routes.reconcile(desired, has_device=False) is None
        assert "10.244.2.0/24" in ip("route show proto 113")
        assert "repaired route 10.244.2.0/24: found" in capfd.readouterr().err
    assert (reporter.error, reporter.counts.errors) == ("", 0)
    assert reporter.counts.drift_detected["route"] == reporter.counts.drift_repaired["route"] == 1
    records = [(r.action, r.object, r.cause) for r in read(tmp_path / "journal")]
    assert records == [
        ("removed", "route 10.9.0.0/24", "leads to no node"),
        ("added", "node node-2 10.244.2.0/24", "the plan"),
        ("restored", "route 10.244.2.0/24", "found"),
    ]


@pytest.mark.usefixtures("namespace")
def test_a_repair_waits_for_the_one_before(tmp_path: Path) -> None:
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log("error"), lambda: 1000.0)
    with Netlink() as nl:
        routes = PeerRoutes(nl, DEVICE, reporter)
        desired = plan_with()
        assert routes.reconcile(desired, has_device=False) is None
        waits = []
        for _ in range(2):
            ip("route del 10.244.2.0/24")
            routes.resync("found")
            waits.append(routes.reconcile(desired, has_device=False))
            ip("route flush proto 113")
            ip("route add 10.244.2.0/24 via 192.0.2.2 proto 4")
        assert waits[0] is None
        assert waits[1] is not None
        assert waits[1] >= GAP
    assert reporter.counts.drift_detected["route"] == 1


@pytest.mark.usefixtures("namespace")
def test_a_failure_names_entry_node_and_the_route_in_the_way_and_is_tried_again(
    tmp_path: Path,
) -> None:
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log("error"))
    ip("route add 10.244.2.0/24 via 192.0.2.9 proto bird")
    with Netlink() as nl:
        routes = PeerRoutes(nl, DEVICE, reporter)
        desired = plan_with("10.244.2.0/24", "10.244.3.0/24")
        wait = routes.reconcile(desired, has_device=False)
        assert reporter.error == (
            "could not set route 10.244.2.0/24 of node-2: File exists (EEXIST) - another route is"
            " in its place, and is not podwire's to remove: via 192.0.2.9 dev br0 proto bird"
        )
        assert wait is not None
        assert 0 < wait <= RETRY
        assert routes.entries.out_of_sync() == 1
        assert "10.244.3.0/24" in ip("route show proto 113")
        ip("route del 10.244.2.0/24")
        routes.resync("")
        reporter.error = ""
        assert routes.reconcile(desired, has_device=False) is None
        assert (reporter.error, routes.entries.out_of_sync()) == ("", 0)


@pytest.mark.usefixtures("namespace")
def test_a_link_that_is_gone_is_no_failure(tmp_path: Path) -> None:
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log("error"))
    with Netlink() as nl:
        routes = PeerRoutes(nl, DEVICE, reporter)
        desired = plan_with()
        ip("link del br0")
        wait = routes.reconcile(desired, has_device=False)
        assert wait is not None
        assert (reporter.error, reporter.counts.errors) == ("", 0)
        assert routes.entries.out_of_sync() == 1


@pytest.mark.usefixtures("namespace")
def test_events_of_others_name_the_cause(tmp_path: Path) -> None:
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log("error"))
    with Netlink() as nl:
        routes = PeerRoutes(nl, DEVICE, reporter)
        desired = plan_with()
        routes.reconcile(desired, has_device=False)
        [entry] = desired.peers["node-2"]
        ip("route del 10.244.2.0/24")
        routes.receive(event_of(entry, deleted=True, port=1 << 30))
        assert routes.entries.out_of_sync() == 1
        routes.reconcile(desired, has_device=False)
        assert "10.244.2.0/24" in ip("route show proto 113")
    last = list(read(tmp_path / "journal"))[-1]
    assert (last.action, last.cause) == (
        "restored",
        f"removed by a process (netlink port {1 << 30})",
    )


@pytest.mark.usefixtures("namespace")
def test_what_others_restore_counts_as_repaired(tmp_path: Path) -> None:
    reporter = Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log("error"))
    counts = reporter.counts
    with Netlink() as nl:
        routes = PeerRoutes(nl, DEVICE, reporter)
        desired = plan_with()
        routes.reconcile(desired, has_device=False)
        ip("route del 10.244.2.0/24")
        ip("route add 10.244.2.0/24 via 192.0.2.9 proto bird")
        routes.resync("found")
        routes.reconcile(desired, has_device=False)
        assert (counts.drift_detected["route"], counts.drift_repaired["route"]) == (1, 0)
        ip("route del 10.244.2.0/24")
        ip("route add 10.244.2.0/24 via 192.0.2.2 dev br0 proto 113")
        routes.resync("")
        assert routes.reconcile(desired, has_device=False) is None
        assert (counts.drift_detected["route"], counts.drift_repaired["route"]) == (1, 1)
