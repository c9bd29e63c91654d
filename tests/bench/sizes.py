"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rounds and repetitions.

    seldom: each n-th round, for contenders whose operations take long.
    idle, stream: seconds of an idle daemon, and of one run of iperf3.
    """

    rounds: int = 100
    slow_rounds: int = 30
    bursts: int = 5
    growth_rounds: int = 60
    seldom: int = 5
    operations: int = 10_000
    starts: int = 7
    edits: int = 15
    idle: float = 30.0
    restarts: int = 5
    heals: int = 40
    streams: int = 40
    stream: int = 1


FULL = Sizes()
QUICK = Sizes(
    rounds=9, slow_rounds=3, bursts=1, growth_rounds=6, seldom=3, operations=600,
    starts=1, edits=1, idle=5.0, restarts=1, heals=1, streams=2,
)  # fmt: skip

PEERS = 5_000
"""Nodes beside this one that routing is measured with."""

LEVELS = (0, 1_000, 10_000, 30_000)
"""Allocations that are present before the measured ADD."""

BURST_PODS = 100
PODS = 8
"""Namespaces that a contender's measured pods take turns in."""
