"""Waiting until something is so, with a deadline that a busy machine keeps easily."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
DEADLINE = 60.0


def wait_until(condition: Callable[[], T], seconds: float = DEADLINE) -> T:
    """What the condition says at last, which must be something true."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)
