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

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""The signals that the daemon obeys."""


def catch() -> None:
    """Queue TERM, INT and USR1 from now on. Calling it again is no error."""
    for number in NUMBERS:
        signal.signal(number, lambda number, _frame: CAUGHT.put(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)


class Signals:
    """stop: set by TERM and INT. USR1 switches the log's level."""

    def __init__(self, log: Log) -> None:
        self.stop = threading.Event()
        self._log = log
        catch()

    def follow(self) -> None:
        """Start to obey; signals that came before are not lost."""
        threading.Thread(target=self._follow, name="signals", daemon=True).start()

    def _follow(self) -> None:
        while CAUGHT.get() == signal.SIGUSR1:
            self._log.switch()
        self.stop.set()
