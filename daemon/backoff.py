"""Pauses between attempts: each twice as long as the one before, and short again after calm."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """The pauses of one thing that is attempted again and again. All times are in seconds.

    first, most: the first pause, and the longest; equal ones make all pauses equal.
    calm: without an attempt for so long, the next one counts as the first.
    jitter: the share of a pause that is drawn at random, so that daemons do not retry in step.
    attempts: without calm; last: when the last one was, by the monotonic clock.
    """

    first: float
    most: float
    calm: float = math.inf
    jitter: float = 0.0
    attempts: int = 0
    last: float = -math.inf

    def next(self, now: float) -> float:
        """Count an attempt; how long to wait before the next one."""
        if self.is_calm(now):
            self.attempts = 0
        pause = min(self.most, self.first * 2.0 ** min(self.attempts, 64))
        self.attempts, self.last = self.attempts + 1, now
        return pause * (1 - random.uniform(0, self.jitter))  # noqa: S311 - no secret

    def is_calm(self, now: float) -> bool:
        """Whether the next attempt counts as the first."""
        return now - self.last > self.calm

    def reset(self) -> None:
        """The attempt succeeded: the next pause is the first again."""
        self.attempts = 0
