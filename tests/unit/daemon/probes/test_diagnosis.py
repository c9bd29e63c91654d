"""An inspection of a peer: what it finds on any path, in how many probes, and its exact verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.probes.diagnosis import (
    STEP,
    Answered,
    Inspection,
    LocalNode,
    Outcome,
    Probe,
    Rejection,
    judge,
    large_probe,
)
from daemon.probes.protocol import Path, smallest
from daemon.probes.report import Reason
from daemon.probes.schedule import Target, Targets

POD, POD6 = Target(Path.POD4, "10.244.2.0"), Target(Path.POD6, "fd00:2::")
NODE, NODE6 = Target(Path.UNDERLAY4, "192.0.2.2"), Target(Path.UNDERLAY6, "2001:db8::2")
TUNNEL = Targets((POD,), (NODE,), tunnelled=True)
DIRECT = Targets((POD,), (NODE,))
DUAL = Targets((POD, POD6), (NODE,), tunnelled=True)
ALONE = Targets((NODE,))
BOTH = Targets((NODE, NODE6))
LOCAL = LocalNode({Path.POD4: "10.244.1.0", Path.UNDERLAY4: "192.0.2.1"}, 1450, 50, 8473, 8472)
OK = Answered(0.001, 0)
PORT = Rejection("port", "Connection refused", "192.0.2.2")
FIREWALL = Rejection("forbidden", "a firewall does not let it through", "192.0.2.254")
LOCAL_FIREWALL = Rejection("forbidden", "this node's own firewall does not let it out")
NO_ROUTE = Rejection("unreachable", "no route to host", "192.0.2.254")

Network = Callable[[Probe], Outcome]


def inspect(
    targets: Targets, network: Network, *, mtu: int = 1450, known: int = 0, check: bool = True
) -> tuple[Inspection, int]:
    """An inspection over a network, and its number of probes."""
    found = Inspection(targets, mtu, check=targets.mains if check else (), known=known)
    number = 0
    while found.stage != "done":
        probes = found.probes()
        assert probes
        assert all(p.size <= max(mtu, smallest(p.target.path.version)) for p in probes)
        number += len(probes)
        assert number < 60
        found.advance({probe: network(probe) for probe in probes})
    return found, number


@pytest.mark.parametrize("targets", [TUNNEL, DIRECT, DUAL, ALONE])
def test_a_peer_that_is_well_costs_one_probe_a_main_path(targets: Targets) -> None:
    found, number = inspect(targets, lambda probe: Answered(0.002, 3))
    assert (number, found.is_ok, found.rtt) == (len(targets.mains), True, 0.002)
    assert judge(found, LOCAL, 0).reason is Reason.NONE


def test_the_stages_send_large_and_small_probes() -> None:
    found = Inspection(DUAL, 1450, check=(POD6,), known=0)
    assert [(p.target, p.size) for p in found.probes()] == [(POD6, 1450)]
    found.advance(dict.fromkeys(found.probes()))
    assert found.stage == "paths"
    sizes = [(POD, 48), (POD6, 68), (NODE, 48)]
    assert [(p.target, p.size) for p in found.probes()] == sizes
    found.advance(dict.fromkeys(found.probes(), OK))
    assert (found.stage, found.is_ok) == ("mtu", False)
    assert [(p.target, p.size) for p in found.probes()] == [(POD, 1450), (POD6, 1450)]
    found.advance(dict.fromkeys(found.probes(), OK))
    assert (found.stage, found.is_ok, found.probes()) == ("done", True, ())


def test_only_the_checked_paths_decide_the_check() -> None:
    found = Inspection(DUAL, 1450, check=(POD6,), known=0)
    found.advance(dict.fromkeys(found.probes(), OK))
    assert (found.stage, found.is_ok) == ("done", True)


def test_a_silent_path_ends_the_inspection_with_the_small_probes() -> None:
    found, number = inspect(DUAL, lambda probe: None if probe.target == POD6 else OK)
    assert number == 2 + 3
    assert (found.is_ok, found.narrow) == (False, None)
    assert found.answer(POD) == OK
    assert found.answer(POD6) is None


def test_a_silent_carrier_alone_is_no_fault() -> None:
    found, number = inspect(TUNNEL, lambda probe: None if probe.target == NODE else OK)
    assert found.is_ok
    found, number = inspect(TUNNEL, lambda probe: None if probe.target == NODE else OK, check=False)
    assert (found.is_ok, number) == (True, 2 + 1)


def test_a_large_probe_is_never_smaller_than_a_probe_can_be() -> None:
    assert large_probe(POD, 1450).size == 1450
    assert large_probe(POD, 10).size == 48
    assert large_probe(POD6, 10).size == 68
    assert large_probe(POD, 1450) != large_probe(POD, 1450)


def test_a_lost_packet_is_no_fault() -> None:
    lost = iter([None])
    found, number = inspect(TUNNEL, lambda probe: next(lost, OK))
    assert found.is_ok
    assert number == 1 + 2 + 1


def test_the_round_trip_is_the_shortest_of_the_main_paths() -> None:
    times = {POD: 0.3, POD6: 0.2, NODE: 0.1}
    found, _number = inspect(DUAL, lambda probe: Answered(times[probe.target], 0), check=False)
    assert found.rtt == 0.2
    found, _number = inspect(DUAL, lambda probe: OK if probe.target == NODE else None)
    assert found.rtt is None


def test_what_the_peer_received_is_gathered_from_all_paths() -> None:
    bits = {POD: 1, NODE: 4}
    found, _number = inspect(
        DUAL, lambda p: Answered(0.1, bits[p.target]) if p.target in bits else None
    )
    assert found.received == 5


@given(st.integers(1280, 9000), st.integers(100, 9000), st.integers(0, 9000), st.booleans())
def test_the_largest_size_that_arrives_is_found(
    mtu: int, most: int, known: int, reports: bool
) -> None:
    def narrow(probe: Probe) -> Outcome:
        if not probe.target.path.is_pod or probe.size <= most:
            return OK
        return Rejection("size", "too long", "192.0.2.9", most) if reports else None

    found, number = inspect(TUNNEL, narrow, mtu=mtu, known=known)
    if most >= mtu:
        assert found.is_ok
        return
    assert not found.is_ok
    assert found.narrow == POD
    assert most - STEP < found.largest <= most
    # By bisection; a size that is reported, or was right before, is tried first.
    assert number <= 4 + 2 + 14
    if reports or most - STEP < known <= most:
        assert number <= 4 + 3
    assert judge(found, LOCAL, 0).reason is Reason.MTU


def test_sizes_of_the_search() -> None:
    """By bisection from the smallest probe's size, to a precision of STEP."""
    sizes: list[int] = []

    def narrow(probe: Probe) -> Outcome:
        sizes.append(probe.size)
        return OK if probe.size <= 1400 else None

    inspect(ALONE, narrow)
    assert sizes[:3] == [1450, 48, 1450]
    assert sizes[3:] == [749, 1099, 1274, 1362, 1406, 1384, 1395, 1400]
    sizes.clear()
    inspect(ALONE, narrow, known=1400)
    assert sizes[3:] == [1400, 1408]
    sizes.clear()
    inspect(ALONE, narrow, known=1410)  # the path became narrower
    assert sizes[3:5] == [1410, 729]


def test_the_narrow_path_is_the_one_where_large_probes_fail() -> None:
    found, _number = inspect(
        DUAL, lambda probe: None if probe.target == POD6 and probe.size > 1300 else OK
    )
    assert found.narrow == POD6
    assert 1300 - STEP < found.largest <= 1300


def test_an_mtu_near_the_smallest_size_needs_no_search() -> None:
    found, number = inspect(ALONE, lambda p: OK if p.size <= 48 else None, mtu=56)
    assert (found.narrow, found.largest, number) == (NODE, 48, 1 + 1 + 1)


@given(st.lists(st.sampled_from([OK, None, PORT]), max_size=60), st.booleans())
def test_any_outcomes_end_with_a_verdict(outcomes: list[Outcome], check: bool) -> None:
    ahead = iter(outcomes)
    found, number = inspect(DUAL, lambda probe: next(ahead, None), check=check)
    verdict = judge(found, LOCAL, 0)
    assert number <= 2 + 3 + 2 + 14
    assert (verdict.reason is Reason.NONE) == found.is_ok == (not verdict.detail)


def only(*answering: Target, received: int = 0, **rejecting: Rejection) -> Network:
    """A network in which these targets answer. rejecting: by the name of their path."""

    def network(probe: Probe) -> Outcome:
        if probe.target in answering:
            return Answered(0.001, received)
        return rejecting.get(probe.target.path.name)

    return network


BIT, NODE_BIT = Path.POD4.bit, Path.UNDERLAY4.bit
CASES: Mapping[str, tuple[Targets, Network, int, Reason, str]] = {
    "overlay": (
        TUNNEL, only(NODE), 0, Reason.OVERLAY_BLOCKED,
        "its node answers at 192.0.2.2, but not in its pod network (10.244.2.0): let UDP port 8472 "
        "pass between 192.0.2.1 and 192.0.2.2, both ways",
    ),
    "overlay of one family": (
        DUAL, only(NODE, POD), 0, Reason.OVERLAY_BLOCKED,
        "its node answers at 192.0.2.2, but not in its pod network (fd00:2::): let UDP port 8472 "
        "pass between 192.0.2.1 and 192.0.2.2, both ways",
    ),
    "only the other family answers": (
        DUAL, only(POD), 0, Reason.OVERLAY_BLOCKED,
        "its node answers at 10.244.2.0, but not in its pod network (fd00:2::): let UDP port 8472 "
        "pass between 192.0.2.1 and 192.0.2.2, both ways",
    ),
    "overlay, own address unknown": (
        Targets((POD,), (NODE6,), tunnelled=True), only(NODE6), 0, Reason.OVERLAY_BLOCKED,
        "its node answers at 2001:db8::2, but not in its pod network (10.244.2.0): let UDP port "
        "8472 pass, both ways",
    ),
    "direct": (
        DIRECT, only(NODE, POD4=FIREWALL), 0, Reason.OVERLAY_BLOCKED,
        "its node answers at 192.0.2.2, but not in its pod network (10.244.2.0) (192.0.2.254 "
        "reports: a firewall does not let it through): let packets with pods' addresses pass "
        "between 192.0.2.1 and 192.0.2.2 (a cloud may check sources and destinations), and check "
        "that the node there has the same back end",
    ),
    "underlay": (
        TUNNEL, only(), 0, Reason.UNDERLAY_DOWN,
        "nothing answers at 192.0.2.2: check that the node is up and on the network, and that UDP "
        "ports 8472 and 8473 may pass",
    ),
    "underlay, direct": (
        DIRECT, only(POD4=NO_ROUTE), 0, Reason.UNDERLAY_DOWN,
        "nothing answers at 192.0.2.2 (192.0.2.254 reports: no route to host): check that the node "
        "is up and on the network, and that UDP port 8473 may pass",
    ),
    "underlay without routes": (
        BOTH, only(), 0, Reason.UNDERLAY_DOWN,
        "nothing answers at 192.0.2.2 and 2001:db8::2: check that the node is up and on the "
        "network, and that UDP port 8473 may pass",
    ),
    "daemon": (
        TUNNEL, only(POD4=PORT), 0, Reason.DAEMON_GONE,
        "its kernel reports that no process listens at 10.244.2.0, UDP port 8473: start podwired "
        "there, with `health` on and the same port; its pods can be reached",
    ),
    "daemon, without routes": (
        ALONE, only(UNDERLAY4=PORT), 0, Reason.DAEMON_GONE,
        "its kernel reports that no process listens at 192.0.2.2, UDP port 8473: start podwired "
        "there, with `health` on and the same port",
    ),
    "daemon below a silent overlay": (
        TUNNEL, only(UNDERLAY4=PORT), 0, Reason.DAEMON_GONE,
        "its kernel reports that no process listens at 192.0.2.2, UDP port 8473: start podwired "
        "there, with `health` on and the same port; nothing comes back over the pod network "
        "(10.244.2.0)",
    ),
    "one way, there": (
        TUNNEL, only(NODE, received=BIT), 0, Reason.ONE_WAY,
        "packets from here arrive in its pod network (10.244.2.0), but none comes back: let UDP "
        "port 8472 pass in that direction, too",
    ),
    "one way, here": (
        TUNNEL, only(NODE), BIT, Reason.ONE_WAY,
        "its packets arrive here, at 10.244.1.0, but none from here arrives in its pod network "
        "(10.244.2.0): let UDP port 8472 pass in that direction, too",
    ),
    "one way, direct": (
        DIRECT, only(), BIT, Reason.ONE_WAY,
        "its packets arrive here, at 10.244.1.0, but none from here arrives in its pod network "
        "(10.244.2.0): let packets with pods' addresses pass in that direction, too",
    ),
    "one way, without routes": (
        ALONE, only(UNDERLAY4=LOCAL_FIREWALL), NODE_BIT, Reason.ONE_WAY,
        "its packets arrive here, at 192.0.2.1, but none from here arrives there (192.0.2.2) (this "
        "node's own firewall does not let it out): let UDP port 8473 pass in that direction, too",
    ),
    "both directions": (
        TUNNEL, only(NODE, received=BIT), BIT, Reason.OVERLAY_BLOCKED,
        "its node answers at 192.0.2.2, but not in its pod network (10.244.2.0): let UDP port 8472 "
        "pass between 192.0.2.1 and 192.0.2.2, both ways",
    ),
    "directions of another path": (
        TUNNEL, only(NODE, received=NODE_BIT), Path.POD6.bit, Reason.OVERLAY_BLOCKED,
        "its node answers at 192.0.2.2, but not in its pod network (10.244.2.0): let UDP port 8472 "
        "pass between 192.0.2.1 and 192.0.2.2, both ways",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_verdicts(name: str) -> None:
    targets, network, received, reason, detail = CASES[name]
    found, _number = inspect(targets, network)
    verdict = judge(found, LOCAL, received)
    assert (verdict.reason, verdict.detail) == (reason, detail)


def narrow_at(most: int) -> Network:
    return lambda probe: OK if probe.size <= most else Rejection("size", "too long", mtu=most)


def test_a_narrow_path_is_advice_once_it_is_confirmed() -> None:
    found, _number = inspect(TUNNEL, narrow_at(1400))
    assert judge(found, LOCAL, 0).detail == (
        "small packets arrive at 10.244.2.0, of 1450 bytes do not: the largest size is being "
        "measured"
    )
    found, _number = inspect(TUNNEL, narrow_at(1400), known=found.largest)
    assert judge(found, LOCAL, 0).detail == (
        "packets of 1400 bytes arrive at 10.244.2.0, of 1450 do not: let the network between the "
        "nodes pass packets of 1500 bytes, or set `mtu: 1400` in podwired.yaml on all nodes"
    )
    found, _number = inspect(DIRECT, narrow_at(1400), known=1400)
    assert judge(found, LOCAL, 0).detail == (
        "packets of 1400 bytes arrive at 10.244.2.0, of 1450 do not: let the network between the "
        "nodes pass packets of that size, or set `mtu: 1400` in podwired.yaml on all nodes"
    )


def test_a_size_that_the_next_inspection_does_not_confirm_is_no_advice() -> None:
    lost = iter([None])

    def narrow(probe: Probe) -> Outcome:
        if probe.target == POD and 200 < probe.size < 1400 and next(lost, OK) is None:
            return None
        return OK if probe.size <= 1400 else None

    first, _number = inspect(TUNNEL, narrow)
    second, _number = inspect(TUNNEL, narrow, known=first.largest)
    third, _number = inspect(TUNNEL, narrow, known=second.largest)
    assert first.largest < second.largest == third.largest
    assert [found.is_confirmed for found in (first, second, third)] == [False, False, True]
    assert "`mtu: " not in judge(second, LOCAL, 0).detail
    assert f"`mtu: {third.largest}`" in judge(third, LOCAL, 0).detail


BLOCKED = "this node's own firewall drops VXLAN"


@pytest.mark.parametrize(
    ("outcome", "reason", "is_local"),
    [
        (None, Reason.UNDERLAY_DOWN, True),
        (PORT, Reason.DAEMON_GONE, False),
        (OK, Reason.NONE, False),
    ],
)
def test_a_fault_of_this_node_comes_before_what_may_be_wrong_elsewhere(
    outcome: Outcome, reason: Reason, is_local: bool
) -> None:
    found, _number = inspect(TUNNEL, lambda _probe: outcome)
    verdict = judge(found, LOCAL, 0, BLOCKED)
    assert (verdict.reason, verdict.detail == BLOCKED) == (reason, is_local)
