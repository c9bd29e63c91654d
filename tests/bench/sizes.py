"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rounds and repetitions.

    seldom: each n-th round, for contenders whose operations take long.
    """

    rounds: int = 100
    slow_rounds: int = 30
    bursts: int = 5
    growth_rounds: int = 60
    seldom: int = 5
    operations: int = 10_000


FULL = Sizes()
QUICK = Sizes(rounds=9, slow_rounds=3, bursts=1, growth_rounds=6, seldom=3, operations=600)

LEVELS = (0, 1_000, 10_000, 30_000)
"""Allocations that are present before the measured ADD."""

BURST_PODS = 100
PODS = 8
"""Namespaces that a contender's measured pods take turns in."""
