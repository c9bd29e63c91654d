"""Signals, taken by a thread of their own.

A handler runs in the middle of anything that the main thread does, so it may take no lock.
"""

from __future__ import annotations

import signal
import threading
from queue import SimpleQueue

from daemon.log import Log


def stop_on_signals(log: Log) -> threading.Event:
    """An event that TERM and INT set; USR1 switches the log's level."""
    stop = threading.Event()
    came: SimpleQueue[int] = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _frame: came.put(number))
    threading.Thread(target=_follow, args=(came, log, stop), name="signals", daemon=True).start()
    return stop


def _follow(came: SimpleQueue[int], log: Log, stop: threading.Event) -> None:
    while came.get() == signal.SIGUSR1:
        log.switch()
    stop.set()
