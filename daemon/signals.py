"""Signals, taken by a thread of their own.

A handler runs in the middle of anything that the main thread does, so it may take no lock.
"""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue

from daemon.log import Log


class Signals:
    """stop: set by TERM and INT. USR1 switches the log's level."""

    def __init__(self, log: Log) -> None:
        self.stop = threading.Event()
        self._log = log
        self._came: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda number, _frame: self._came.put(number))

    def follow(self, *, switches: bool = True) -> None:
        """Do what signals ask for from now on; those that came before are not lost.

        switches: whether this process switches the level, which is that of all: a service manager
        may signal each of them.
        """
        threading.Thread(target=self._follow, args=(switches,), name="signals", daemon=True).start()

    def _follow(self, switches: bool) -> None:
        while self._came.get() == signal.SIGUSR1:
            if switches:
                self._log.switch()
        self.stop.set()
