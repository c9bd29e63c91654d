"""Incremental comparison against one of everything, with a kernel that is a dictionary; records."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daemon.routing.peer_routes import EntryChange, PeerEntries, records_of
from kernel.diff import Change, Key, key_of
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route
from kernel.netlink.codec import NLM_F_REPLACE
from kernel.netlink.monitor import Event

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
