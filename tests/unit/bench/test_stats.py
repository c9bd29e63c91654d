"""What is said of samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.stats import percentile, ratio, summarize

SAMPLES = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=300)


def test_summary_of_known_samples() -> None:
    summary = summarize([float(n) for n in range(1, 201)])
    assert (summary.count, summary.median, summary.p99) == (200, 100.5, 198.0)
    assert (summary.least, summary.mean) == (1.0, 100.5)


def test_one_sample_is_its_own_summary() -> None:
    summary = summarize([7.0])
    assert (summary.count, summary.median, summary.p99, summary.least) == (1, 7.0, 7.0, 7.0)


def test_p99_of_few_samples_is_the_highest() -> None:
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([float(n) for n in range(100)], 99) == 98.0


def test_nothing_has_no_summary() -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_percentile_refuses_what_is_none(percent: float) -> None:
    with pytest.raises(ValueError, match="percent="):
        percentile([1.0], percent)


@given(SAMPLES, st.integers(1, 100))
def test_percentile_is_the_smallest_sample_that_enough_do_not_exceed(
    samples: list[float], percent: int
) -> None:
    found = percentile(samples, percent)

    def covered(limit: float) -> bool:
        return 100 * sum(s <= limit for s in samples) >= percent * len(samples)

    assert found in samples
    assert covered(found)
    assert not any(covered(s) for s in samples if s < found)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(1.0, 4.0, 0.25), (None, 4.0, None), (1.0, None, None), (1.0, 0.0, None)],
)
def test_ratio(ours: float | None, theirs: float | None, expected: float | None) -> None:
    assert ratio(ours, theirs) == expected
