"""How often one object is put right when somebody keeps undoing it: at once, then more slowly.

podwire wins in the end, and never turns into a busy loop beside another that wants to win.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

GAP = 0.25
"""Seconds between two repairs of the same object."""
PAUSE_MAX = 1.0
"""Seconds that a repair waits at most because the last batch of them took long."""
CALM = 30.0
"""Seconds without a repair after which an object counts as never touched."""
STUBBORN = 8
"""As many repairs without calm are a quarrel, whose repairs are counted and no longer told each."""
REMIND = 60.0
"""Seconds after which a quarrel is told again."""


@dataclass(slots=True)
class _Quarrel:
    count: int
    last: float
    until: float
    told: float = -math.inf


class Backoff:
    """When each object may be repaired next. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._quarrels: dict[Hashable, _Quarrel] = {}
        self._pause_until = 0.0

    def wait_for(self, key: Hashable, now: float) -> float:
        """Seconds until the object may be repaired; 0 where it may now."""
        quarrel = self._quarrels.get(key)
        if quarrel is None or now - quarrel.last > CALM:
            return 0.0
        return max(0.0, max(quarrel.until, self._pause_until) - now)

    def note(self, key: Hashable, now: float, gap: float = GAP) -> int:
        """Count a repair, or an attempt; how many there were without calm."""
        quarrel = self._quarrels.get(key)
        if quarrel is None or now - quarrel.last > CALM:
            quarrel = self._quarrels[key] = _Quarrel(0, now, now)
        quarrel.count, quarrel.last, quarrel.until = quarrel.count + 1, now, now + gap
        return quarrel.count

    def remind(self, key: Hashable, now: float) -> int:
        """How often an object was repaired, if that is a quarrel and to be told now; else 0."""
        quarrel = self._quarrels.get(key)
        if quarrel is None or quarrel.count < STUBBORN or now - quarrel.told < REMIND:
            return 0
        quarrel.told = now
        return quarrel.count

    def note_effort(self, began: float, now: float) -> None:
        """After a batch of repairs, repeating one waits: most of the time stays free."""
        self._pause_until = now + min(4 * (now - began), PAUSE_MAX)

    def forget(self, now: float) -> None:
        """Drop what has calmed down."""
        calm = [key for key, quarrel in self._quarrels.items() if now - quarrel.last > CALM]
        for key in calm:
            del self._quarrels[key]
