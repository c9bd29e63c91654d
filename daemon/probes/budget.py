"""How many packets may go in a time: a bucket that fills by itself."""

from __future__ import annotations

_TOGETHER = 0.25
"""Seconds whose share goes at once: whoever wakes up that often uses next to no processor."""


def steady(rate: float) -> Budget:
    """One that is never overdrawn: by no moment has more gone than its rate since it was made."""
    return Budget(rate, max(1.0, _TOGETHER * rate), full=False)


class Budget:
    """rate: a second; most: what may go at once after a rest, and at first where it is full."""

    def __init__(self, rate: float, most: float, *, full: bool = True) -> None:
        self.rate, self.most = rate, most
        self._left = most if full else 0.0
        self._at: float | None = 0.0 if full else None  # None: time begins with the first question

    def has(self, now: float) -> bool:
        """Whether something may go now."""
        gone = 0.0 if self._at is None else max(0.0, now - self._at)
        self._left = min(self.most, self._left + gone * self.rate)
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
