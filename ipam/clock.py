"""The clocks of the store.

Rest periods are measured in seconds since boot, which no clock change can move; the wall clock
only tells people how old an allocation is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


def _seconds_since_boot() -> float:
    # Unlike CLOCK_MONOTONIC it counts the time of suspends (clock_gettime(2)).
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` gives seconds since 1970, `uptime` seconds since boot."""

    wall: Callable[[], float] = time.time
    uptime: Callable[[], float] = _seconds_since_boot


SYSTEM = Clock()


def render_duration(seconds: float) -> str:
    """A duration in its two largest units: `3d 4h`, `12m 5s`, `0s`."""
    rest = max(0, int(seconds))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, rest = divmod(rest, length)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2]) or "0s"
