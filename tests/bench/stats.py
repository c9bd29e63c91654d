"""Samples and what is said of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """What is told of some samples, in their unit."""

    count: int
    median: float
    p99: float
    least: float
    mean: float


def summarize(samples: Sequence[float]) -> Summary:
    """The summary of one or more samples; ValueError without any."""
    if not samples:
        raise ValueError("no samples")
    return Summary(
        len(samples),
        statistics.median(samples),
        percentile(samples, 99),
        min(samples),
        statistics.fmean(samples),
    )


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that so many percent do not exceed."""
    if not 0 < percent <= 100:
        raise ValueError(f"percent={percent} is not in (0, 100]")
    rank = math.ceil(len(samples) * percent / 100)
    return sorted(samples)[max(rank, 1) - 1]


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times theirs ours is; None where one was not measured."""
    if ours is None or theirs is None or theirs <= 0:
        return None
    return ours / theirs
