"""The queue of peers that are due, the targets of peers, token buckets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model import Node
from daemon.probes.protocol import Path
from daemon.probes.schedule import (
    Queue,
    Target,
    Targets,
    TokenBucket,
    own_targets,
    targets_of,
)
from daemon.routing.planner import Planner
from kernel.model import (
    RTPROT_PODWIRE_PEERS,
    Address,
    Entry,
    FdbEntry,
    IPAddress,
    Neighbour,
    Route,
)
from tests.unit.daemon.clusters import cluster, host_state, node, planned, settings


@dataclass(eq=False)
class Member:
    name: str
    ticket: int = 0
    gone: bool = False


def test_peers_come_in_the_order_of_their_times() -> None:
    queue = Queue[Member]()
    a, b, c = (Member(name) for name in "abc")
    assert queue.next_due() is None
    assert queue.pop(100.0) is None
    queue.add_urgent(a, 3.0)
    queue.add_urgent(b, 1.0)
    queue.add_regular(c, 2.0)
    assert queue.next_due() == 1.0
    assert queue.pop(0.9) is None
    assert queue.pop(1.0) is b
    assert b.ticket == 0
    assert queue.next_due() == 2.0
    assert queue.pop(2.0) is c
    assert queue.pop(3.0) is a
    assert queue.next_due() is None


def test_peers_of_one_time_come_in_the_order_in_which_they_were_added() -> None:
    queue = Queue[Member]()
    members = [Member(str(n)) for n in range(5)]
    for member in members:
        queue.add_urgent(member, 7.0)
    assert [queue.pop(7.0) for _ in members] == members


def test_urgent_peers_go_first_and_leave_regular_ones_their_half() -> None:
    queue = Queue[Member]()
    for n in range(4):
        queue.add_urgent(Member(f"urgent-{n}"), 0.0)
        queue.add_regular(Member(f"regular-{n}"), 0.0)
    found = [queue.pop(1.0) for _ in range(8)]
    names = [member.name for member in found if member]
    assert names == [f"{kind}-{n}" for n in range(4) for kind in ("urgent", "regular")]
    # A regular one that is not due takes no turn.
    queue.add_urgent(Member("a"), 0.0)
    queue.add_urgent(Member("b"), 0.0)
    queue.add_regular(Member("c"), 5.0)
    later = [queue.pop(1.0) for _ in range(3)]
    assert [member.name for member in later if member] == ["a", "b"]


def test_those_whose_verdict_is_pending_come_before_others_that_are_overdue() -> None:
    queue = Queue[Member]()
    overdue, pending, later = (Member(name) for name in ("overdue", "pending", "later"))
    queue.add_urgent(overdue, 1.0)
    queue.add_first(pending, 5.0)
    queue.add_first(later, 9.0)
    assert queue.next_due() == 1.0
    assert [queue.pop(6.0) for _ in range(3)] == [pending, overdue, None]
    queue.add_urgent(later, 20.0)  # it loses its place
    assert queue.next_due() == 20.0


@pytest.mark.parametrize("regular", [False, True])
def test_a_new_place_takes_the_old_one_and_who_is_gone_has_none(regular: bool) -> None:
    queue = Queue[Member]()
    add = queue.add_regular if regular else queue.add_urgent
    moved, gone = Member("moved"), Member("gone")
    add(gone, 1.0)
    add(moved, 2.0)
    gone.gone = True
    assert queue.next_due() == 2.0
    add(moved, 9.0)
    assert queue.next_due() == 9.0
    assert queue.pop(8.0) is None
    assert queue.pop(9.0) is moved
    assert queue.pop(99.0) is None


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 10), st.floats(0, 3)), max_size=60
    )
)
def test_no_peer_comes_early_or_twice(steps: list[tuple[int, bool, float, float]]) -> None:
    queue, now = Queue[Member](), 0.0
    members = [Member(str(n)) for n in range(6)]
    dues: dict[str, float] = {}
    for number, regular, delay, passed in steps:
        member = members[number]
        (queue.add_regular if regular else queue.add_urgent)(member, now + delay)
        dues[member.name] = now + delay
        now += passed
        found = queue.pop(now)
        if found is not None:
            assert dues.pop(found.name) <= now
    while (found := queue.pop(1e9)) is not None:
        del dues[found.name]
    assert dues == {}


VIA, OTHER, MAC = ip_address("192.0.2.2"), ip_address("2001:db8::2"), "02:00:00:00:00:02"
PEER = Node("node-2", (VIA, OTHER), ())


def route(prefix: str, link: str, via: IPAddress | None) -> Route:
    return Route(ip_network(prefix), link, via=via, protocol=RTPROT_PODWIRE_PEERS)


def tunnel(prefix: str) -> tuple[Entry, ...]:
    first = ip_network(prefix).network_address
    return (
        FdbEntry("podwire-vxlan", MAC, VIA),
        Neighbour("podwire-vxlan", first, MAC),
        route(prefix, "podwire-vxlan", first),
    )


TARGETS = {
    "vxlan": (
        (*tunnel("10.244.2.0/24"), *tunnel("fd00:2::/64")),
        Targets(
            (Target(Path.POD4, "10.244.2.0"), Target(Path.POD6, "fd00:2::")),
            (Target(Path.UNDERLAY4, "192.0.2.2"),),
            tunnelled=True,
        ),
    ),
    "direct": (
        (route("10.244.2.0/24", "eth0", VIA), route("10.244.3.0/24", "eth0", VIA)),
        Targets(
            (Target(Path.POD4, "10.244.2.0"),), (Target(Path.UNDERLAY4, "192.0.2.2"),), False
        ),
    ),
    "on link": (
        (route("fd00:2::/64", "eth0", None),),
        Targets((Target(Path.POD6, "fd00:2::"),), (), False),
    ),
    "no route": (
        (),
        Targets((Target(Path.UNDERLAY4, "192.0.2.2"), Target(Path.UNDERLAY6, "2001:db8::2"))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_targets_follow_the_entries(name: str) -> None:
    entries, targets = TARGETS[name]
    assert targets_of(PEER, entries) == targets
    assert tuple(targets) == targets.mains + targets.below


def test_addresses_are_written_as_sockets_have_them() -> None:
    mapped = Node("n", (ip_address("::ffff:10.0.0.1"), ip_address("2001:db8:0:1:1:1:1:1")), ())
    addresses = [target.address for target in targets_of(mapped, ())]
    assert addresses == ["::ffff:10.0.0.1", "2001:db8:0:1:1:1:1:1"]


def test_own_targets_are_the_pod_network_first() -> None:
    desired = planned(Planner(settings()), cluster(node(1), node(2)), host_state(), ())
    underlay = Target(Path.UNDERLAY4, "192.0.2.1")
    assert own_targets(desired) == (Target(Path.POD4, "10.244.1.0"), underlay)
    device = (Address("podwire-vxlan", ip_interface("10.9.0.0/32")),)
    direct = replace(
        desired,
        device_addresses=device,
        own_routes=(route("fd00:9::/128", "lo", None),),
    )
    pods = (Target(Path.POD4, "10.9.0.0"), Target(Path.POD6, "fd00:9::"))
    assert own_targets(direct) == (*pods, underlay)


def test_a_full_bucket_gives_its_size_at_once_and_then_its_rate() -> None:
    bucket = TokenBucket(2.0, 3.0)
    taken = 0
    while bucket.has(100.0):
        bucket.take()
        taken += 1
    assert taken == 3
    assert bucket.wait(100.0) == 0.5
    assert not bucket.has(100.49)
    assert bucket.has(100.5)
    assert bucket.wait(100.5) == 0.0


def test_an_empty_bucket_gains_from_its_first_question_on() -> None:
    bucket = TokenBucket(4.0, 8.0, full=False)
    assert not bucket.has(1000.0)
    assert bucket.wait(1000.0) == 0.25
    assert bucket.wait(1000.0, batch=3.0) == 0.75
    assert bucket.wait(1000.0, batch=100.0) == 2.0  # it never holds more than 8
    assert bucket.has(1000.25)
    assert bucket.wait(1000.25, batch=3.0) == 0.0  # one is enough to go on


def test_it_never_holds_more_than_its_size() -> None:
    bucket = TokenBucket(10.0, 5.0, full=False)
    bucket.has(0.0)
    bucket.has(1000.0)
    bucket.take(5)
    assert not bucket.has(1000.0)


def test_taking_more_than_there_is_delays_what_follows() -> None:
    bucket = TokenBucket(1.0, 2.0)
    assert bucket.has(0.0)
    bucket.take(5)
    assert bucket.wait(0.0) == 4.0
    assert not bucket.has(3.9)
    assert bucket.has(4.0)


def test_its_rate_can_be_changed() -> None:
    bucket = TokenBucket(1.0, 1.0, full=False)
    bucket.has(0.0)
    bucket.rate = 10.0
    assert bucket.has(0.1)


@given(st.floats(0.5, 100), st.floats(1, 50), st.lists(st.floats(0, 3), max_size=60), st.booleans())
def test_at_no_time_more_than_rate_and_size_allow(
    rate: float, size: float, steps: list[float], full: bool
) -> None:
    bucket = TokenBucket(rate, size, full=full)
    now, taken = 50.0, 0
    bucket.has(now)
    for step in steps:
        now += step
        while bucket.has(now):
            bucket.take()
            taken += 1
        assert taken <= (now - 50.0) * rate + (size if full else 0.0) + 1e-6
        assert bucket.wait(now) > 0
    wait = bucket.wait(now)
    assert bucket.has(now + wait + 1e-6)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1.0, 1.0, full=False)
    bucket.has(10.0)
    assert not bucket.has(5.0)
    assert not bucket.has(5.5)
