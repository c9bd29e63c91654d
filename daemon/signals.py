"""Signals of the daemon: caught from its first moment on, obeyed by a thread of their own.

This module loads next to nothing: until the handlers are installed, each of these signals ends the
process.
"""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from daemon.log import Log

CAUGHT: SimpleQueue[int] = SimpleQueue()
"""Their numbers, in order. A handler runs in the middle of anything, so it may take no lock; this
queue takes none."""

_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def catch() -> None:
    """Queue TERM, INT and USR1 from now on. Calling it again is no error."""
    for number in _NUMBERS:
        signal.signal(number, lambda number, _frame: CAUGHT.put(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NUMBERS)


class Signals:
    """stop: set by TERM and INT. USR1 switches the log's level."""

    def __init__(self, log: Log) -> None:
        self.stop = threading.Event()
        self._log = log
        catch()

    def follow(self, *, switches: bool = True) -> None:
        """Start to obey; signals that came before are not lost.

        switches: whether this process switches the level, which all processes share: a service
        manager may signal each of them.
        """
        threading.Thread(target=self._follow, args=(switches,), name="signals", daemon=True).start()

    def _follow(self, switches: bool) -> None:
        while CAUGHT.get() == signal.SIGUSR1:
            if switches:
                self._log.switch()
        self.stop.set()
