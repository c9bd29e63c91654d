"""A look at a peer: what it finds of any path, and in how many steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.probes.diagnosis import Place, judge
from daemon.probes.inspection import STEP, Answer, Ask, Inspection, Outcome, Refusal
from daemon.probes.protocol import Path, smallest
from daemon.probes.states import Reason
from daemon.probes.targets import Target, Targets

POD, POD6 = Target(Path.POD4, "10.244.2.0"), Target(Path.POD6, "fd00:2::")
NODE = Target(Path.UNDERLAY4, "192.0.2.2")
TUNNEL = Targets((POD,), (NODE,), tunnelled=True)
DIRECT = Targets((POD,), (NODE,))
DUAL = Targets((POD, POD6), (NODE,), tunnelled=True)
ALONE = Targets((NODE,))
PLACE = Place({Path.POD4: "10.244.1.0", Path.UNDERLAY4: "192.0.2.1"}, 1450, 50, 8473, 8472)
WELL = Answer(0.001, 0)
PORT = Refusal("port", "Connection refused", "192.0.2.2")

Network = Callable[[Ask], Outcome]


def look(
    targets: Targets, network: Network, *, mtu: int = 1450, known: int = 0, check: bool = True
) -> tuple[Inspection, int]:
    """A look through a network, and its number of probes."""
    seen = Inspection(targets, mtu, check=targets.mains if check else (), known=known)
    probes = 0
    while seen.stage != "over":
        asks = seen.asks()
        assert asks
        assert all(ask.size <= max(mtu, smallest(ask.target.path.version)) for ask in asks)
        probes += len(asks)
        assert probes < 60
        seen.advance({ask: network(ask) for ask in asks})
    return seen, probes


@pytest.mark.parametrize("targets", [TUNNEL, DIRECT, DUAL, ALONE])
def test_a_peer_that_is_well_costs_one_probe_a_path(targets: Targets) -> None:
    seen, probes = look(targets, lambda ask: Answer(0.002, 3))
    assert (probes, seen.is_well, seen.rtt) == (len(targets.mains), True, 0.002)
    assert judge(seen, PLACE, 0).reason is Reason.NONE


def test_a_lost_packet_is_no_trouble() -> None:
    lost = iter([None])
    seen, probes = look(TUNNEL, lambda ask: next(lost, WELL))
    assert seen.is_well
    assert probes == 1 + 2 + 1


@given(st.integers(1280, 9000), st.integers(100, 9000), st.integers(0, 9000), st.booleans())
def test_the_largest_size_that_arrives_is_found(
    mtu: int, most: int, known: int, tells: bool
) -> None:
    def narrow(ask: Ask) -> Outcome:
        if not ask.target.path.is_pod or ask.size <= most:
            return WELL
        return Refusal("size", "too long", "192.0.2.9", most) if tells else None

    seen, probes = look(TUNNEL, narrow, mtu=mtu, known=known)
    if most >= mtu:
        assert seen.is_well
        return
    assert not seen.is_well
    assert seen.narrow == POD
    assert most - STEP < seen.largest <= most
    # By halves; what is told, or was right before, is right at once.
    assert probes <= 4 + 2 + 14
    if tells or most - STEP < known <= most:
        assert probes <= 4 + 3
    assert judge(seen, PLACE, 0).reason is Reason.MTU


@given(st.lists(st.sampled_from([WELL, None, PORT]), max_size=60), st.booleans())
def test_whatever_comes_it_ends_with_a_verdict(outcomes: list[Outcome], check: bool) -> None:
    ahead = iter(outcomes)
    seen, probes = look(DUAL, lambda ask: next(ahead, None), check=check)
    verdict = judge(seen, PLACE, 0)
    assert probes <= 2 + 3 + 2 + 14
    assert (verdict.reason is Reason.NONE) == seen.is_well == (not verdict.detail)


def only(*answering: Target, heard: int = 0, **refusing: Refusal) -> Network:
    """A network in which these answer; refusing: by name of path."""

    def network(ask: Ask) -> Outcome:
        if ask.target in answering:
            return Answer(0.001, heard)
        return refusing.get(ask.target.path.name)

    return network


BIT = Path.POD4.bit
NO_ROUTE = Refusal("unreachable", "no route to host", "192.0.2.254")
CASES = {
    "overlay": (TUNNEL, only(NODE), 0, Reason.OVERLAY_BLOCKED, "let UDP port 8472 pass between"),
    "one family": (DUAL, only(NODE, POD), 0, Reason.OVERLAY_BLOCKED, "pod network (fd00:2::)"),
    "host-gw": (DIRECT, only(NODE), 0, Reason.OVERLAY_BLOCKED, "packets with pods' addresses"),
    "underlay": (TUNNEL, only(), 0, Reason.UNDERLAY_DOWN, "UDP ports 8472 and 8473"),
    "router": (TUNNEL, only(POD4=NO_ROUTE), 0, Reason.UNDERLAY_DOWN, "192.0.2.254 says: no route"),
    "alone": (ALONE, only(), 0, Reason.UNDERLAY_DOWN, "nothing answers at 192.0.2.2: is"),
    "daemon": (TUNNEL, only(POD4=PORT), 0, Reason.DAEMON_GONE, "its pods can be reached"),
    "daemon below": (TUNNEL, only(UNDERLAY4=PORT), 0, Reason.DAEMON_GONE, "nothing comes back"),
    "there": (TUNNEL, only(NODE, heard=BIT), 0, Reason.ONE_WAY, "arrive in its pod network"),
    "here": (TUNNEL, only(NODE), BIT, Reason.ONE_WAY, "its packets arrive here, at 10.244.1.0"),
    "both heard": (TUNNEL, only(NODE, heard=BIT), BIT, Reason.OVERLAY_BLOCKED, "8472"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_reasons(name: str) -> None:
    targets, network, heard, reason, words = CASES[name]
    seen, _probes = look(targets, network)
    verdict = judge(seen, PLACE, heard)
    assert (verdict.reason, words in verdict.detail) == (reason, True), verdict


def test_words_for_a_narrow_path() -> None:
    def narrow(ask: Ask) -> Outcome:
        return WELL if ask.size <= 1400 else Refusal("size", "too long", mtu=1400)

    seen, _probes = look(TUNNEL, narrow)
    detail = judge(seen, PLACE, 0).detail
    assert "small packets arrive at 10.244.2.0, of 1450 bytes do not" in detail
    assert "1400" not in detail  # nobody sets all nodes' MTU by what one look says
    seen, _probes = look(TUNNEL, narrow, known=seen.largest)
    detail = judge(seen, PLACE, 0).detail
    assert "packets of 1400 bytes arrive at 10.244.2.0, of 1450 do not" in detail
    assert "pass packets of 1500 bytes, or set `mtu: 1400`" in detail


def test_a_size_that_another_look_finds_otherwise_is_no_advice() -> None:
    lost = iter([None])

    def narrow(ask: Ask) -> Outcome:
        if ask.target == POD and 200 < ask.size < 1400 and next(lost, WELL) is None:
            return None
        return WELL if ask.size <= 1400 else None

    first, _probes = look(TUNNEL, narrow)
    second, _probes = look(TUNNEL, narrow, known=first.largest)
    third, _probes = look(TUNNEL, narrow, known=second.largest)
    assert first.largest < second.largest == third.largest
    assert [s.is_settled for s in (first, second, third)] == [False, False, True]
    assert "`mtu: " not in judge(second, PLACE, 0).detail
    assert f"`mtu: {third.largest}`" in judge(third, PLACE, 0).detail
