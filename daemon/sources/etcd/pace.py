"""How soon something is put right that somebody else keeps undoing: more slowly each time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_FIRST, _LAST, _CALM = 0.1, 60.0, 600.0


class Pace:
    """Pauses that double, and begin anew after a calm time.

    most: seconds that none is longer than. now: seconds, monotonic.
    """

    def __init__(self, most: float = _LAST, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._now = min(most, _LAST), now
        self._pause, self._last = 0.0, -math.inf

    def next(self) -> float:
        """Seconds to wait before it is put right again."""
        now = self._now()
        fresh = now - self._last > _CALM
        self._pause = _FIRST if fresh else min(self._most, self._pause * 2)
        self._last = now
        return self._pause
