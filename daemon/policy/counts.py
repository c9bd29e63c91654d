"""What the metrics have of policies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyCounts:
    """selected: pods that any of them limits.

    closed: pods that are not known yet. updates: transactions since the start; seconds: how long
    the last one took, from what caused it to the kernel.
    """

    policies: int = 0
    faulty: int = 0
    selected: int = 0
    closed: int = 0
    updates: int = 0
    cut: int = 0
    seconds: float = 0.0
