"""How many packets may go in a time: a bucket that fills by itself."""

from __future__ import annotations

_TOGETHER = 0.25
"""Seconds whose share goes at once: whoever wakes up that often uses next to no processor."""


class Budget:
    """rate: a second; most: what may go at once after a rest."""

    def __init__(self, rate: float, most: float) -> None:
        self.rate, self.most = rate, most
        self._left, self._at = most, 0.0

    def has(self, now: float) -> bool:
        """Whether something may go now."""
        self._left = min(self.most, self._left + max(0.0, now - self._at) * self.rate)
        self._at = now
        return self._left >= 1

    def spend(self, count: int) -> None:
        """So many go. More than are left puts off what comes next."""
        self._left -= count

    def wait(self, now: float) -> float:
        """Seconds until something may go; a little more, so that several go at once."""
        if self.has(now):
            return 0.0
        some = min(self.most, max(1.0, _TOGETHER * self.rate))
        return (some - self._left) / self.rate
