"""A token bucket, for whatever is limited to a rate."""

from __future__ import annotations


class TokenBucket:
    """Gains `rate` tokens a second, holds `size` at most, and starts full or empty.

    One that starts empty never exceeds its rate, counted from its start. All times are of one
    clock, in seconds.
    """

    def __init__(self, rate: float, size: float, *, full: bool = True) -> None:
        self.rate, self.size = rate, size
        self._tokens = size if full else 0.0
        self._filled_at: float | None = None  # the clock starts with the first question

    def has(self, now: float) -> bool:
        """Whether there is a token."""
        if self._filled_at is not None:
            gained = max(0.0, now - self._filled_at) * self.rate
            self._tokens = min(self.size, self._tokens + gained)
        self._filled_at = now
        return self._tokens >= 1

    def take(self, count: int = 1) -> None:
        """Take tokens. More than there are delays those that follow."""
        self._tokens -= count

    def wait(self, now: float, batch: float = 1.0) -> float:
        """0 while there is a token, else the seconds until there is a batch of them."""
        if self.has(now):
            return 0.0
        return (min(self.size, max(1.0, batch)) - self._tokens) / self.rate
