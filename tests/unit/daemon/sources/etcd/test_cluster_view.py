"""The cluster drawn from keys: the same however it came about; no subnet ever moves by force."""

from __future__ import annotations

import itertools
from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daemon.sources.etcd.cluster_view import GRACE, EtcdView, KeptNodes
from daemon.sources.etcd.keys import (
    Keys,
    KeyValue,
    LengthKey,
    NodeKey,
    SubnetKey,
    encode_holder,
    encode_record,
)
from tests.unit.daemon.clusters import node

KEYS = Keys("/podwire")
RANGES = (ip_network("10.244.0.0/16"), ip_network("fd00:10:244::/48"))
NAMES = [f"node-{n}" for n in range(1, 5)]
SUBNETS = [ip_network(f"10.244.{n}.0/24") for n in range(4)] + [ip_network("10.9.0.0/24")]


class Etcd(RuleBasedStateMachine):
    """An etcd in small, and two views of it: one by its events, one by reading it whole."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: dict[bytes, KeyValue] = {}
        self.revisions = itertools.count(1)
        self.follower = EtcdView(KEYS, RANGES, "node-1")

    def write(self, key: bytes, value: bytes) -> None:
        now, old = next(self.revisions), self.pairs.get(key)
        self.pairs[key] = KeyValue(key, value, old.created if old else now, now, 7)
        self.follower.put(self.pairs[key])

    @rule(name=st.sampled_from(NAMES), subnets=st.lists(st.sampled_from(SUBNETS), unique=True))
    def register(self, name: str, subnets: list[object]) -> None:
        member = node(name, "192.0.2.1", " ".join(map(str, subnets)))
        self.write(KEYS.write(NodeKey(name)), encode_record(member))

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, len(SUBNETS) - 1))
    def lease(self, name: str, number: int) -> None:
        key = KEYS.write(SubnetKey(SUBNETS[number]))
        if key not in self.pairs:
            self.write(key, encode_holder(name))

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.pairs:
            key = data.draw(st.sampled_from(sorted(self.pairs)))
            del self.pairs[key]
            self.follower.delete(key)

    @rule(name=st.sampled_from(NAMES), value=st.binary(max_size=10))
    def scribble(self, name: str, value: bytes) -> None:
        self.write(KEYS.write(NodeKey(name)), value)

    @rule()
    def miss_events(self) -> None:
        self.follower.replace_all(self.pairs.values())

    @invariant()
    def both_views_are_the_same(self) -> None:
        whole = EtcdView(KEYS, RANGES, "node-1")
        whole.replace_all(self.pairs.values())
        assert dict(self.follower.nodes) == dict(whole.nodes)
        assert self.follower.holder_names == whole.holder_names
        assert self.follower.refused == whole.refused
        assert self.follower.own_record == whole.own_record

    @invariant()
    def it_is_what_keys_say(self) -> None:
        for found in self.follower.nodes.values():
            assert found.name != "node-1"
            for subnet in found.pod_cidrs:
                assert self.pairs[KEYS.write(SubnetKey(subnet))].value == found.name.encode()
                assert subnet != SUBNETS[-1]


TestEtcd = Etcd.TestCase


def held(view: EtcdView, name: str) -> list[str]:
    return list(map(str, view.nodes[name].pod_cidrs))


def drawn() -> EtcdView:
    """node-2 with a subnet; this is node-1."""
    view = EtcdView(KEYS, RANGES, "node-1")
    view.replace_all([
        KeyValue(KEYS.write(NodeKey("node-2")), encode_record(node(2)), 5, 5, 7),
        KeyValue(KEYS.write(SubnetKey(ip_network("10.244.2.0/24"))), b"node-2", 5, 5, 7),
    ])  # fmt: skip
    return view


@given(st.booleans(), st.lists(st.sampled_from([*NAMES, "x" * 300, "\x00"]), min_size=1))
def test_a_subnet_written_over_stays_its_holders(whole: bool, names: list[str]) -> None:
    view = drawn()
    key = KEYS.write(SubnetKey(ip_network("10.244.2.0/24")))
    thief = KeyValue(
        KEYS.write(NodeKey("node-3")), encode_record(node(3, "", "10.244.2.0/24")), 6, 6
    )
    view.put(thief)
    for revision, name in enumerate(names, 10):
        pair = KeyValue(key, name.encode(), 5, revision, 0)
        if whole:
            view.replace_all(
                [KeyValue(KEYS.write(NodeKey("node-2")), encode_record(node(2)), 5), pair]
            )
        else:
            view.put(pair)
        assert held(view, "node-2") == ["10.244.2.0/24"]
        assert "node-3" not in view.nodes or held(view, "node-3") == []


@given(st.binary(max_size=9), st.booleans())
def test_a_key_by_hand_is_taken_whatever_it_says(value: bytes, whole: bool) -> None:
    value = b"!" + value
    view = EtcdView(KEYS, RANGES, "node-1")
    pair = KeyValue(KEYS.write(SubnetKey(SUBNETS[2])), value, 5, 5)
    view.replace_all([pair]) if whole else view.put(pair)
    (words,) = view.holder_names.values()
    assert words == ascii(value.decode(errors="replace"))
    assert view.refused
    # Put right, it is the node's.
    view.put(KeyValue(pair.key, b"node-2", 5, 6))
    assert view.holder_names == {SUBNETS[2]: "node-2"}
    assert not view.refused


def test_a_key_that_was_made_anew_by_hand_is_its_holders_no_more() -> None:
    view = drawn()
    view.put(KeyValue(KEYS.write(SubnetKey(SUBNETS[2])), b"printers", 9, 9))
    assert held(view, "node-2") == []
    view.put(KeyValue(KEYS.write(SubnetKey(SUBNETS[2])), b"for printers", 10, 10))
    assert view.holder_names == {SUBNETS[2]: "'for printers'"}


def test_a_key_that_is_made_wins_over_what_an_earlier_daemon_knew() -> None:
    view = EtcdView(KEYS, RANGES, "node-1")
    view.restore([node(2)])
    view.put(
        KeyValue(KEYS.write(NodeKey("node-3")), encode_record(node(3, "", "10.244.2.0/24")), 9)
    )
    view.put(KeyValue(KEYS.write(SubnetKey(SUBNETS[2])), b"node-3", 9, 9))
    assert held(view, "node-3") == ["10.244.2.0/24"]
    assert held(view, "node-2") == []


def test_a_subnet_given_back_can_be_anothers() -> None:
    for whole in (True, False):
        view = drawn()
        key = KEYS.write(SubnetKey(ip_network("10.244.2.0/24")))
        record = KeyValue(
            KEYS.write(NodeKey("node-3")), encode_record(node(3, "", "10.244.2.0/24")), 9
        )
        fresh = KeyValue(key, b"node-3", 9, 9, 8)
        if whole:
            view.replace_all([record, fresh])
        else:
            view.delete(key)
            view.put(record)
            view.put(fresh)
        assert held(view, "node-3") == ["10.244.2.0/24"]


def test_nodes_that_did_not_change_are_the_same_objects() -> None:
    view = drawn()
    before = view.nodes["node-2"]
    view.put(KeyValue(KEYS.write(NodeKey("node-3")), encode_record(node(3)), 9))
    view.put(KeyValue(KEYS.write(LengthKey(4)), b"24", 9))
    assert view.nodes["node-2"] is before


def test_what_an_earlier_daemon_knew_is_gone_on_from() -> None:
    view = EtcdView(KEYS, RANGES, "node-1")
    view.restore([node(1), node(2)])
    assert list(view.nodes) == ["node-2"]
    view.put(KeyValue(KEYS.write(SubnetKey(ip_network("10.244.2.0/24"))), b"node-3", 5, 9))
    assert held(view, "node-2") == ["10.244.2.0/24"]  # it was not deleted
    # Read whole, etcd knows better.
    view.replace_all(
        [KeyValue(KEYS.write(SubnetKey(ip_network("10.244.2.0/24"))), b"node-3", 8, 8)]
    )
    assert view.holder_names == {ip_network("10.244.2.0/24"): "node-3"}
    assert dict(view.nodes) == {}


def test_kept_nodes_stay_until_they_are_back_or_the_grace_is_over() -> None:
    seconds = 0.0
    kept = KeptNodes(now=lambda: seconds)
    assert kept.missing((), ()) == []
    assert kept.keep({"node-2": node(2), "node-3": node(3)}) == 2
    assert kept.missing({"node-2"}, ()) == [node(3)]
    (without,) = kept.missing({"node-2"}, {ip_network("10.244.3.0/24")})
    assert without.pod_cidrs == ()
    assert kept.seconds_left == GRACE
    seconds = GRACE - 1
    assert kept.missing((), ()) == [node(2), node(3)]
    seconds = GRACE
    assert kept.seconds_left == 0.0
    assert kept.missing((), ()) == []
    assert kept.seconds_left > GRACE
