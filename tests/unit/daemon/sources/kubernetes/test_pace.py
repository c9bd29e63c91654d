"""When something is due again: never in a loop, never too late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.kubernetes.pace import ASK_BURST, CALM, PAUSE_MAX, Bucket, Pace


def test_the_first_time_is_at_once_and_each_next_one_later() -> None:
    pace, now, waits = Pace(), 1000.0, []
    for _ in range(12):
        pace.soon(now)
        waits.append(pace.due - now)
        now = max(now, pace.due)
    assert waits[0] == 0
    assert 0 < waits[1] <= 1
    assert PAUSE_MAX / 2 <= waits[-1] <= PAUSE_MAX
    assert sum(waits) > 60


def test_after_a_calm_time_it_is_the_first_time_again() -> None:
    pace = Pace()
    for _ in range(8):
        pace.soon(1000.0)
    pace.soon(1001.0 + CALM)
    assert pace.due == 1001.0 + CALM


@given(st.floats(1, 10_000))
def test_what_works_is_wanted_again_about_then(seconds: float) -> None:
    pace = Pace()
    pace.soon(50.0)
    pace.later(100.0, seconds)
    assert 0.8 * seconds <= pace.due - 100.0 <= 1.2 * seconds + 1e-6


@given(st.integers(1, 10_000), st.integers(60, 3600))
def test_all_daemons_together_stay_below_a_rate(daemons: int, seconds: int) -> None:
    """Beyond their bursts, whatever there is to ask; and each asks now and then at least."""
    bucket, now, asked = Bucket(), 1000.0, 0
    bucket.share(daemons)
    while asked < 5000:
        now += bucket.wait(now) + 1e-6
        if now > 1000.0 + seconds:
            break
        if bucket.wait(now) > 0:
            continue
        bucket.take()
        asked += 1
    assert (asked - ASK_BURST) * daemons <= 2000 * seconds + daemons or daemons < 100
    assert asked - ASK_BURST <= 20 * seconds + 1
    assert asked >= min(5000, seconds // 5)
