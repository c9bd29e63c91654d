"""Signals, obeyed by a thread of their own."""

from __future__ import annotations

import signal
import threading

from daemon.caught import CAME, catch
from daemon.log import Log


class Signals:
    """stop: set by TERM and INT, which `ending` tells apart from others who set it.

    USR1 switches the log's level.
    """

    def __init__(self, log: Log) -> None:
        self.stop, self.ending = threading.Event(), False
        self._log = log
        catch()

    def follow(self, *, switches: bool = True) -> None:
        """Do what signals ask for from now on; those that came before are not lost.

        switches: whether this process switches the level, which is that of all: a service manager
        may signal each of them.
        """
        threading.Thread(target=self._follow, args=(switches,), name="signals", daemon=True).start()

    def _follow(self, switches: bool) -> None:
        while CAME.get() == signal.SIGUSR1:
            if switches:
                self._log.switch()
        self.ending = True
        self.stop.set()
