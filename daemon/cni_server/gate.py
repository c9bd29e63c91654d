"""How many calls compute at a time.

Threads that compete for the interpreter's lock hand it over at every system call, and in the kernel
they spin on the one lock of all network settings (kernel/locking/mutex.c, mutex_spin_on_owner): a
burst of CNI calls would spend most of its time on that. What a call only waits for goes on outside.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

SLOTS = 1
"""A second one made a burst no shorter, and each call of it a sixth dearer."""

PATIENCE = 0.5
"""Seconds after which a call goes on without a slot: those who hold them may be stuck."""


class Gate:
    """Slots that calls hold while they compute."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = threading.Semaphore(slots)
        self._mine = threading.local()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Hold a slot for the duration, if one is free before long."""
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Give the slot of the calling thread, if it has one, to others for the duration."""
        held = self._leave()
        try:
            yield
        finally:
            if held:
                self._enter()

    def _enter(self) -> None:
        self._mine.held = self._slots.acquire(timeout=PATIENCE)

    def _leave(self) -> bool:
        held: bool = getattr(self._mine, "held", False)
        self._mine.held = False
        if held:
            self._slots.release()
        return held
