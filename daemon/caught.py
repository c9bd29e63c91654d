"""Signals that came, kept from the first moment of the daemon on for the thread that obeys them.

It loads next to nothing: until the handlers are there, each of these signals ends the process.
"""

from __future__ import annotations

import signal
from queue import SimpleQueue

CAME: SimpleQueue[int] = SimpleQueue()
"""Their numbers. A handler runs in the middle of anything, so it may take no lock; this takes
none."""


_TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def catch() -> None:
    """Keep TERM, INT and USR1 from now on; again is no error."""
    for number in _TAKEN:
        signal.signal(number, lambda number, _frame: CAME.put(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN)


def hold() -> None:
    """Let them wait for the next `catch`, also where that is another program's (execve(2))."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN)
