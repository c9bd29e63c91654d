"""The turns of calls in one process: taken few at a time, computed one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from daemon.cni_server.gate import Gate
from daemon.cni_server.plugins import Plugins
from daemon.cni_server.shifts import Shifts
from daemon.log import Log


class Turns:
    """gate: who computes; shifts: who waits for the next call; plugins: who for another plugin."""

    def __init__(self, log: Log) -> None:
        self.gate, self.shifts, self.plugins = Gate(), Shifts(), Plugins(log)

    @contextmanager
    def outside(self) -> Iterator[None]:
        """The calling thread only waits for the duration: its turn is another's."""
        self.shifts.leave()
        with self.gate.outside():
            yield
