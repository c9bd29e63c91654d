"""How soon routing begins anew after an error that nobody foresaw, and how often that is told."""

from __future__ import annotations

import time
from collections.abc import Callable

from daemon.log import Log

PAUSE = 0.5
"""Seconds before the first new beginning; each one after it waits twice as long."""
PAUSE_MAX = 10.0
_CALM = 60.0
_AGAIN = 60.0


class Restarts:
    """Counts beginnings that ended in an error."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._pause, self._count = PAUSE, 0
        self._last = self._told = -_AGAIN

    def note(self, error: Exception) -> float:
        """Take an error; the seconds to wait before the next beginning."""
        now = self._clock()
        if now - self._last > _CALM:
            self._pause, self._count, self._told = PAUSE, 0, -_AGAIN
        self._count += 1
        if now - self._told >= _AGAIN:
            self._told = now
            times = f" ({self._count} times now)" if self._count > 1 else ""
            self._log.error(f"routing begins anew{times}: {error!r}")
        pause, self._pause = self._pause, min(2 * self._pause, PAUSE_MAX)
        self._last = now
        return pause
