"""Which of many threads wait for the next call.

Several processes wait at one socket. One that took all calls of a burst would leave the others
idle, so each has room for a few calls at a time; what a call only waits for does not count. Of the
threads at rest the last to rest is the first to go on: its stack and sockets are still warm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

ROOMS = 3
"""Calls that one process takes at a time: one that computes, those beside it read and answer."""
THREADS = 64
"""So many calls of one process may be under way, most of them waiting for the kernel."""
REST_SECONDS = 2.0
"""Seconds after which a thread that nobody had use for ends."""


class Shifts:
    """Threads that take turns."""

    def __init__(self, rooms: int = ROOMS, most: int = THREADS) -> None:
        self._most = most
        self._start: Callable[[], None] = _nobody
        self._mutex = threading.Lock()
        self._mine = threading.local()
        self._free = self._rooms = rooms
        self._threads = self._waiting = self._taken = self._extra = 0
        self._resting: list[threading.Lock] = []
        self._stopping = False
        self._seen = -1

    def open(self, start: Callable[[], None]) -> None:
        """Start the first threads. start: starts one, which calls `begin` again and again."""
        with self._mutex:
            self._start = start
            for _ in range(self._rooms):
                self._call_one()

    def begin(self) -> bool:
        """Rest until the calling thread is to wait for a call; False where it is to end."""
        if not hasattr(self._mine, "room"):  # it was started to have the room that it was given
            self._mine.room = True
            return True
        with self._mutex:
            if self._stopping:
                return False
            if not self._has_room() and not self._take_room():
                bell = threading.Lock()
                bell.acquire()
                self._resting.append(bell)
            else:
                self._waiting += 1
                return True
        if not bell.acquire(timeout=REST_SECONDS) and self._give_up(bell):
            return False
        self._mine.room = True
        return not self._stopping

    def accepted(self) -> None:
        """The calling thread has a call now."""
        with self._mutex:
            self._waiting -= 1
            self._taken += 1
            self._replace()

    def missed(self) -> None:
        """It has none: another was quicker."""
        with self._mutex:
            self._waiting -= 1

    def leave(self) -> None:
        """The call of this thread only waits from now on: its room is another's."""
        if not getattr(self._mine, "room", False):  # not a thread of ours
            return
        self._mine.room = False
        with self._mutex:
            if self._extra:
                self._extra -= 1
            else:
                self._free += 1
                self._replace()

    def relieve(self) -> None:
        """To be called again and again: where all calls are stuck since the last time, a further
        one is taken."""
        with self._mutex:
            if self._waiting == 0 and self._seen == self._taken and not self._free:
                self._extra += 1
                self._free += 1
                self._replace()
            self._seen = self._taken

    def stop(self) -> None:
        """Let every thread end that is at rest, or comes to it."""
        with self._mutex:
            self._stopping = True
            for bell in self._resting:
                bell.release()
            self._resting.clear()

    def _give_up(self, bell: threading.Lock) -> bool:
        """End the thread, unless it is called this very moment."""
        with self._mutex:
            if bell not in self._resting:
                return False
            self._resting.remove(bell)
            self._threads -= 1
            return True

    def _has_room(self) -> bool:
        """Whether the thread keeps the room that it has; those that were extra go first."""
        if not self._mine.room:
            return False
        if self._extra and self._waiting:
            self._extra -= 1
            self._mine.room = False
            return False
        return True

    def _take_room(self) -> bool:
        if not self._free:
            return False
        self._free -= 1
        self._mine.room = True
        return True

    def _replace(self) -> None:
        """See to it that somebody waits for a call, where there is room."""
        if self._waiting == 0 and self._free and not self._stopping:
            self._call_one()

    def _call_one(self) -> None:
        if not self._resting and self._threads >= self._most:
            return
        self._free -= 1
        self._waiting += 1
        if self._resting:
            self._resting.pop().release()
        else:
            self._threads += 1
            self._start()


def _nobody() -> None:
    """Before `open` there is nobody to call."""
