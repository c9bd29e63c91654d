"""Repairs of one object: at once, then at most four a second, and told once."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from daemon.routing.backoff import CALM, GAP, PAUSE_MAX, STUBBORN, Backoff


def test_the_first_repair_is_at_once_and_others_wait() -> None:
    backoff = Backoff()
    assert backoff.wait_for("a", 100.0) == 0
    assert backoff.note("a", 100.0) == 1
    assert backoff.wait_for("a", 100.0) == GAP
    assert backoff.wait_for("b", 100.0) == 0
    assert backoff.wait_for("a", 100.0 + GAP) == 0
    assert backoff.note("a", 100.0 + GAP) == 2


def test_calm_makes_it_new() -> None:
    backoff = Backoff()
    for n in range(STUBBORN):
        assert backoff.note("a", 100.0 + n) == n + 1
    assert backoff.note("a", 100.0 + STUBBORN + CALM) == 1
    backoff.forget(100.0 + STUBBORN + 3 * CALM)
    assert backoff.wait_for("a", 100.0 + STUBBORN + 3 * CALM) == 0


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60))
def test_whoever_keeps_undoing_it_gets_no_more_than_four_a_second(gaps: list[float]) -> None:
    backoff, now, repaired = Backoff(), 100.0, []
    for gap in gaps:
        now += gap
        if backoff.wait_for("a", now) == 0:
            backoff.note("a", now)
            repaired.append(now)
    assert all(later - earlier >= GAP - 1e-9 for earlier, later in pairwise(repaired))
    assert len(repaired) >= 1


def test_large_batches_leave_time_for_others() -> None:
    backoff = Backoff()
    backoff.note("a", 100.0)
    backoff.note_effort(100.0, 100.125)
    assert backoff.wait_for("a", 100.125) == 0.5
    backoff.note_effort(100.0, 104.0)
    assert backoff.wait_for("a", 104.0) == PAUSE_MAX
    assert backoff.wait_for("never touched", 104.0) == 0
