"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rounds and repetitions.

    seldom: each n-th round, for contenders whose operations take long.
    all_probed: whether every peer is probed before a daemon counts as idle.
    idle, stream: seconds of an idle daemon, and of one run of iperf3.
    quiet: seconds of a source to which nothing happens. beats: reports of kubelets meanwhile.
    herd: daemons that start at once. policy_hours: of changes to pods and policies;
    policy_changes: of which each is awaited.
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
    all_probed: bool = True
    restarts: int = 5
    heals: int = 40
    streams: int = 40
    stream: int = 1
    quiet: float = 660.0
    beats: int = 1000
    changes_counted: int = 50
    arrivals: int = 300
    herd: int = 500
    policy_hours: float = 1.0
    policy_changes: int = 100


FULL = Sizes()
QUICK = Sizes(
    rounds=9, slow_rounds=3, bursts=1, growth_rounds=6, seldom=3, operations=600,
    starts=1, edits=1, idle=5.0, all_probed=False, restarts=1, heals=1, streams=2,
    quiet=5.0, beats=50, changes_counted=10, arrivals=100, herd=100,
    policy_hours=0.25, policy_changes=20,
)  # fmt: skip

PEERS = 5_000
"""Nodes beside this one that routing is measured with."""

LEVELS = (0, 1_000, 10_000, 30_000)
"""Allocations that are present before the measured ADD."""

BURST_PODS = 100
PODS = 8
"""Namespaces that a contender's measured pods take turns in."""
