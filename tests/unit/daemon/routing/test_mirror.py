"""The mirror against a naive one that compares everything, and a kernel that is a dictionary."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daemon.routing.mirror import Mirror
from kernel.diff import Key, key_of
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


def told(entry: Entry, *, deleted: bool = False, port: int = 99, flags: int = 0) -> Event:
    kinds = {Route: "route", Neighbour: "neighbour", FdbEntry: "fdb"}
    return Event(kinds[type(entry)], deleted, entry, port, flags)  # type: ignore[arg-type]


class MirrorMachine(RuleBasedStateMachine):
    """Plans and damage in any order; after a repair the kernel is as planned."""

    def __init__(self) -> None:
        super().__init__()
        self.mirror = Mirror(DEVICE)
        self.kernel: dict[Key, Entry] = {}
        self.peers: dict[str, tuple[Entry, ...]] = {}

    @rule(number=st.integers(1, 4), variant=st.integers(0, 2))
    def peer_comes_or_moves(self, number: int, variant: int) -> None:
        self.peers[f"node-{number}"] = peer_entries(number, variant)
        self.mirror.aim(self.peers)

    @rule(number=st.integers(1, 4))
    def peer_leaves(self, number: int) -> None:
        self.peers.pop(f"node-{number}", None)
        self.mirror.aim(self.peers)

    @rule(data=st.data())
    def something_is_removed(self, data: st.DataObject) -> None:
        if self.kernel:
            key = data.draw(st.sampled_from(sorted(self.kernel, key=repr)))
            self.mirror.note(told(self.kernel.pop(key), deleted=True))

    @rule(number=st.integers(1, 6), variant=st.integers(0, 3), which=st.integers(0, 2))
    def something_is_put_there(self, number: int, variant: int, which: int) -> None:
        entry = peer_entries(number, variant)[which]
        self.kernel[key_of(entry)] = entry
        self.mirror.note(told(entry))

    @rule(number=st.integers(1, 4))
    def a_stranger_takes_a_place(self, number: int) -> None:
        route = Route(ip_network(f"10.0.{number}.0/24"), "eth0")
        if key_of(route) in self.kernel:
            self.kernel[key_of(route)] = route
            self.mirror.note(told(route, flags=NLM_F_REPLACE))

    @rule()
    def everything_is_read(self) -> None:
        self.mirror.reset(dict(self.kernel), "looked")

    @rule()
    def repair(self) -> None:
        repairs, wait = self.mirror.repairs(lambda _key: 0.0)
        assert wait is None
        for change in repairs:
            assert self.kernel.get(change.key) == change.have
            self.kernel.pop(change.key, None)
            if change.want is not None:
                self.kernel[change.key] = change.want
        self.mirror.settle(repairs, ())
        assert self.kernel == self.wanted()
        assert self.mirror.dirty == 0

    def wanted(self) -> dict[Key, Entry]:
        return {key_of(e): e for entries in self.peers.values() for e in entries}

    @invariant()
    def it_knows_both_sides(self) -> None:
        assert self.mirror.want == self.wanted()
        assert self.mirror.have == self.kernel
        missing = [k for k, e in self.wanted().items() if self.kernel.get(k) != e]
        assert self.mirror.out_of_sync() == len(missing)


TestMirror = MirrorMachine.TestCase


def filled() -> Mirror:
    mirror = Mirror(DEVICE)
    mirror.aim({"a": peer_entries(1, 0)})
    mirror.reset({key_of(e): e for e in peer_entries(1, 0)}, "")
    return mirror


def test_a_peer_that_did_not_change_is_passed_over() -> None:
    mirror = Mirror(DEVICE)
    same = peer_entries(1, 0)
    mirror.aim({"a": same})
    mirror.settle(mirror.repairs(lambda _key: 0.0)[0], ())
    mirror.aim({"a": same, "b": peer_entries(2, 0)})
    repairs, _wait = mirror.repairs(lambda _key: 0.0)
    assert {r.node for r in repairs} == {"b"}
    assert [r.cause for r in repairs] == ["", "", ""]


def test_who_did_it_is_remembered() -> None:
    mirror = filled()
    entry = peer_entries(1, 0)[2]
    mirror.note(told(entry, deleted=True, port=1 << 30))
    [repair], _wait = mirror.repairs(lambda _key: 0.0)
    assert (repair.have, repair.want, repair.node) == (None, entry, "a")
    assert repair.cause == f"removed by a process (netlink port {1 << 30})"


def test_what_waits_is_done_later() -> None:
    mirror = filled()
    for entry in peer_entries(1, 0):
        mirror.note(told(entry, deleted=True))
    repairs, wait = mirror.repairs(lambda key: 0.5 if key[0] == "fdb" else 0.0)
    assert ([r.key[0] for r in repairs], wait) == (["neighbour", "route"], 0.5)
    mirror.settle(repairs, {repairs[0].key})
    assert mirror.out_of_sync() == 2


@given(st.booleans(), st.booleans())
def test_what_is_not_ours_changes_nothing(deleted: bool, replaces: bool) -> None:
    mirror = filled()
    fdb, neighbour, route = peer_entries(1, 0)
    assert isinstance(route, Route)
    flags = NLM_F_REPLACE * replaces
    for entry in (
        replace(fdb, link="vx2"),
        replace(neighbour, link="eth0"),
        replace(route, dst=ip_network("10.9.0.0/16"), protocol=3),
        # News of a device that was made anew meanwhile.
        *([replace(route, link="")] if deleted else []),
    ):
        mirror.note(told(entry, deleted=deleted, flags=flags))
    assert mirror.repairs(lambda _key: 0.0) == ([], None)
