"""The token bucket: its rate, its size, and how long to wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.token_bucket import TokenBucket


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
