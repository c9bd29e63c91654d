"""Pauses double up to the longest, and begin with the first again after calm or success."""

from __future__ import annotations

import pytest

from daemon.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 10.0)
    assert [backoff.next(100.0 + n) for n in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]
    assert (backoff.attempts, backoff.last) == (7, 106.0)


def test_equal_bounds_make_equal_pauses() -> None:
    backoff = Backoff(0.25, 0.25)
    assert {backoff.next(float(n)) for n in range(2000)} == {0.25}


def test_calm_makes_the_next_attempt_the_first() -> None:
    backoff = Backoff(0.5, 10.0, calm=60.0)
    assert backoff.is_calm(0.0)
    assert [backoff.next(100.0), backoff.next(160.0)] == [0.5, 1.0]
    assert not backoff.is_calm(220.0)
    assert backoff.is_calm(220.001)
    assert backoff.next(221.0) == 0.5
    assert backoff.attempts == 1


def test_success_makes_the_next_attempt_the_first() -> None:
    backoff = Backoff(0.5, 10.0)
    assert [backoff.next(1.0), backoff.next(2.0)] == [0.5, 1.0]
    backoff.reset()
    assert backoff.next(3.0) == 0.5


@pytest.mark.parametrize("jitter", [0.2, 1.0])
def test_jitter_only_shortens(jitter: float) -> None:
    pauses = [Backoff(8.0, 8.0, jitter=jitter).next(0.0) for _ in range(200)]
    assert all(8.0 * (1 - jitter) <= pause <= 8.0 for pause in pauses)
    assert len(set(pauses)) > 100
