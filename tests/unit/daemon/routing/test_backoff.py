"""Repairs of one object: at once, then at most four a second, and reported once."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from daemon.routing.backoff import CALM, FLAPPING, GAP, PAUSE_MAX, REMIND, RepairPauses


def test_the_first_repair_is_at_once_and_others_wait() -> None:
    pauses = RepairPauses()
    assert pauses.wait("a", 100.0) == 0
    assert pauses.count("a", 100.0) == 1
    assert pauses.wait("a", 100.0) == GAP
    assert pauses.wait("b", 100.0) == 0
    assert pauses.wait("a", 100.0 + GAP) == 0
    assert pauses.count("a", 100.0 + GAP) == 2


def test_calm_makes_it_new() -> None:
    pauses = RepairPauses()
    for n in range(FLAPPING):
        assert pauses.count("a", 100.0 + n) == n + 1
    assert pauses.count("a", 100.0 + FLAPPING + CALM) == 1
    pauses.forget_calm(100.0 + FLAPPING + 3 * CALM)
    assert pauses.wait("a", 100.0 + FLAPPING + 3 * CALM) == 0


def test_flapping_is_reported_once_in_a_while() -> None:
    pauses = RepairPauses()
    assert pauses.due_report("a", 100.0) == 0
    reports = []
    for n in range(300):
        now = 100.0 + n
        assert pauses.count("a", now) == n + 1
        if times := pauses.due_report("a", now):
            reports.append((now, times))
    first = 100.0 + FLAPPING - 1
    assert reports[:2] == [(first, FLAPPING), (first + REMIND, FLAPPING + int(REMIND))]
    assert len(reports) == 5


def test_only_calm_objects_are_forgotten() -> None:
    pauses = RepairPauses()
    pauses.count("calm", 100.0)
    pauses.count("a", 100.0 + CALM)
    pauses.forget_calm(100.1 + CALM)
    assert pauses.wait("a", 100.1 + CALM) > 0
    assert pauses.count("a", 101.0 + CALM) == 2
    assert pauses.count("calm", 101.0 + CALM) == 1


@given(st.lists(st.floats(0.001, 1.0), min_size=1, max_size=60))
def test_whoever_keeps_undoing_it_gets_no_more_than_four_a_second(gaps: list[float]) -> None:
    pauses, now, repaired = RepairPauses(), 100.0, []
    for gap in gaps:
        now += gap
        if pauses.wait("a", now) == 0:
            pauses.count("a", now)
            repaired.append(now)
    assert all(later - earlier >= GAP - 1e-9 for earlier, later in pairwise(repaired))
    assert len(repaired) >= 1


def test_large_batches_leave_time_for_others() -> None:
    pauses = RepairPauses()
    pauses.count("a", 100.0)
    pauses.note_batch(100.0, 100.125)
    assert pauses.wait("a", 100.125) == 0.5
    pauses.note_batch(100.0, 104.0)
    assert pauses.wait("a", 104.0) == PAUSE_MAX
    assert pauses.wait("never touched", 104.0) == 0
