"""One peer: the state that follows each verdict, and what it remembers."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from daemon.model import Node
from daemon.probes.diagnosis import Answered, Inspection, Verdict
from daemon.probes.peer import MISSES, Peer
from daemon.probes.protocol import Path
from daemon.probes.report import PeerHealth, Reason, State
from daemon.probes.schedule import Target

FIRST, SECOND = Target(Path.UNDERLAY4, "192.0.2.2"), Target(Path.UNDERLAY6, "2001:db8::2")
OK = Verdict(Reason.NONE)
BAD = Verdict(Reason.MTU, "too narrow")


def make() -> Peer:
    addresses = ip_address(FIRST.address), ip_address(SECOND.address)
    return Peer(Node("node-2", addresses, ()), (), 5.0)


def conclude(peer: Peer, verdict: Verdict, *, largest: int = 1400) -> State:
    found = peer.inspect(peer.targets, 1450, 100.0)
    if verdict is OK:
        found.advance({probe: Answered(0.25, 0) for probe in found.probes()})
    found.largest = largest
    state = peer.conclude(verdict, found, 1450)
    peer.state = state
    return state


def test_a_new_peer_is_pending() -> None:
    assert make().health() == PeerHealth(
        "node-2", State.PENDING, Reason.NONE, "", since=5.0, rtt=None, path_mtu=0
    )


def test_a_peer_that_never_answers_connects_until_it_fails() -> None:
    peer = make()
    states = [conclude(peer, BAD) for _ in range(MISSES + 2)]
    assert states == [State.CONNECTING] * (MISSES - 1) + [State.FAILED] * 3
    assert (peer.reason, peer.detail, peer.path_mtu) == (Reason.MTU, "too narrow", 1400)
    assert conclude(peer, OK) is State.ESTABLISHED
    assert (peer.reason, peer.detail, peer.path_mtu, peer.misses) == (Reason.NONE, "", 1450, 0)


def test_a_peer_that_was_established_is_retried_until_it_fails() -> None:
    peer = make()
    assert conclude(peer, OK) is State.ESTABLISHED
    assert [conclude(peer, BAD) for _ in range(MISSES)] == [
        *[State.RETRYING] * (MISSES - 1),
        State.FAILED,
    ]
    # Failed it stays, whatever the number of inspections, until one finds it well.
    peer.misses = 0
    assert conclude(peer, BAD) is State.FAILED


@pytest.mark.parametrize("state", State)
def test_what_counts_as_a_connection_that_was_established(state: State) -> None:
    peer = make()
    peer.state = state
    assert peer.was_established == (state in (State.ESTABLISHED, State.RETRYING))


def test_the_round_trip_stays_where_an_inspection_has_none() -> None:
    peer = make()
    conclude(peer, OK)
    assert peer.rtt == 0.25
    conclude(peer, BAD)
    assert peer.rtt == 0.25


def first_stage(peer: Peer) -> str:
    return peer.inspect(peer.targets, 1450, 100.0).stage


def test_the_check_is_left_out_once_something_was_wrong() -> None:
    peer = make()
    assert first_stage(peer) == "check"
    conclude(peer, BAD)
    assert first_stage(peer) == "paths"
    peer.misses, peer.state = 0, State.ESTABLISHED
    assert first_stage(peer) == "paths"  # its single probe was the check
    peer.state = State.FAILED
    assert first_stage(peer) == "check"


def test_the_size_found_is_remembered_for_a_narrow_path_alone() -> None:
    peer = make()
    conclude(peer, BAD, largest=1300)
    assert _confirms(peer, 1300)
    conclude(peer, Verdict(Reason.UNDERLAY_DOWN, "silent"), largest=1300)
    assert not _confirms(peer, 1300)


def _confirms(peer: Peer, size: int) -> bool:
    found: Inspection = peer.inspect(peer.targets, 1450, 100.0)
    found.largest = size
    return found.is_confirmed


def test_suspicion_starts_with_the_first_of_the_inspections() -> None:
    peer = make()
    peer.inspect(peer.targets, 1450, 100.0)
    assert peer.suspect_since == 100.0
    peer.misses = 1
    peer.inspect(peer.targets, 1450, 200.0)
    assert peer.suspect_since == 100.0


def test_an_abandoned_inspection_leaves_nothing() -> None:
    peer = make()
    conclude(peer, OK)
    peer.inspect(peer.targets, 1450, 100.0)
    peer.is_inconclusive = True
    peer.abandon_inspection()
    assert (peer.inspection, peer.is_inconclusive) == (None, False)
    assert peer.state is State.ESTABLISHED


def test_main_paths_take_turns() -> None:
    peer = make()
    assert [peer.next_main() for _ in range(4)] == [SECOND, FIRST, SECOND, FIRST]


def test_received_probes_are_remembered_by_path_and_time() -> None:
    peer = make()
    assert peer.received_since(float("-inf")) == 0
    peer.note_received(Path.POD4, 10.0)
    peer.note_received(Path.UNDERLAY6, 20.0)
    assert peer.received_since(10.0) == Path.POD4.bit | Path.UNDERLAY6.bit
    assert peer.received_since(10.1) == Path.UNDERLAY6.bit
    assert peer.received_since(20.1) == 0


def test_the_last_probes_are_counted() -> None:
    peer = make()
    for outcome in (None, Answered(0.1, 0), None):
        peer.note_outcome(outcome)
    assert (peer.health().probes, peer.health().lost) == (3, 2)
    for _ in range(100):
        peer.note_outcome(Answered(0.1, 0))
    assert (peer.health().probes, peer.health().lost) == (64, 0)
    for _ in range(70):
        peer.note_outcome(None)
    assert (peer.health().probes, peer.health().lost) == (64, 64)
