"""When something is due again: attempts that double their pauses, questions that are rationed."""

from __future__ import annotations

import random

PAUSE, PAUSE_MAX = 0.5, 30.0
"""Seconds between attempts: the first ones, the later ones."""
CALM = 600.0
"""Seconds without trouble after which the next one counts as the first."""
ASK_BURST = 20
"""So many questions at once."""
_ASK_GAPS = 0.05, 5.0
_CLUSTER_RATE = 2000
"""Questions a second that all daemons of a cluster may ask together in the long run."""


class Pace:
    """When something is due that is repeated until it works; pauses double, with jitter."""

    def __init__(self) -> None:
        self.due = 0.0
        self._attempts, self._last = 0, 0.0

    def soon(self, now: float) -> None:
        """It is wanted: at once the first time, later each time it is."""
        if now - self._last > CALM:
            self._attempts = 0
        pause = min(PAUSE_MAX, PAUSE * 2**self._attempts) if self._attempts else 0.0
        self.due = now + pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
        self._attempts, self._last = min(self._attempts + 1, 16), now

    def later(self, now: float, seconds: float) -> None:
        """It worked, and is wanted again then."""
        self._attempts = 0
        self.due = now + seconds * random.uniform(0.8, 1.2)  # noqa: S311


class Bucket:
    """Tokens that come back one by one."""

    def __init__(self, size: int = ASK_BURST) -> None:
        self._size, self._gap = size, _ASK_GAPS[1]
        self._tokens, self._last = float(size), 0.0

    def wait(self, now: float) -> float:
        """Seconds until there is one."""
        self._tokens = min(self._size, self._tokens + (now - self._last) / self._gap)
        self._last = now
        return max(0.0, (1 - self._tokens) * self._gap)

    def share(self, daemons: int) -> None:
        """How many daemons ask the same API."""
        least, most = _ASK_GAPS
        self._gap = min(most, max(least, daemons / _CLUSTER_RATE))

    def take(self) -> None:
        """Use one."""
        self._tokens -= 1
