"""How often one object is repaired that others keep changing: at once, then four times a second.

podwire wins in the end, and never becomes a busy loop beside a program that wants to win too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field

from daemon.backoff import Backoff

GAP = 0.25
"""Seconds between two repairs of the same object."""
PAUSE_MAX = 1.0
"""The longest time in seconds that a repair waits because the last batch of them took long."""
CALM = 30.0
"""Seconds without a repair after which an object counts as never changed by others."""
FLAPPING = 8
"""An object that was repaired so often without calm is flapping: only the number is reported."""
REMIND = 60.0
"""Seconds after which flapping is reported again."""


def _repeated() -> Backoff:
    return Backoff(GAP, GAP, CALM)


@dataclass(slots=True)
class _Repairs:
    pauses: Backoff = field(default_factory=_repeated)
    until: float = 0.0
    reported: float = -math.inf


class RepairPauses:
    """When each object may be repaired next. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._objects: dict[Hashable, _Repairs] = {}
        self._pause_until = 0.0

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until the object may be repaired; 0 where it may now."""
        repairs = self._objects.get(key)
        if repairs is None or repairs.pauses.is_calm(now):
            return 0.0
        return max(0.0, max(repairs.until, self._pause_until) - now)

    def count(self, key: Hashable, now: float) -> int:
        """Count a repair; how many there were without calm."""
        repairs = self._objects.get(key)
        if repairs is None or repairs.pauses.is_calm(now):
            repairs = self._objects[key] = _Repairs()
        repairs.until = now + repairs.pauses.next(now)
        return repairs.pauses.attempts

    def due_report(self, key: Hashable, now: float) -> int:
        """How often a flapping object was repaired, if that is to be reported now; else 0."""
        repairs = self._objects.get(key)
        if repairs is None or repairs.pauses.attempts < FLAPPING or now - repairs.reported < REMIND:
            return 0
        repairs.reported = now
        return repairs.pauses.attempts

    def note_batch(self, began: float, now: float) -> None:
        """After a batch of repairs, repeating one waits: most of the time stays free."""
        self._pause_until = now + min(4 * (now - began), PAUSE_MAX)

    def forget_calm(self, now: float) -> None:
        """Forget the objects that others leave alone again."""
        for key in [k for k, repairs in self._objects.items() if repairs.pauses.is_calm(now)]:
            del self._objects[key]
