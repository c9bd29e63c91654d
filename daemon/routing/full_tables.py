"""Whether tables of the kernel, or the disk of the store, have room left."""

from __future__ import annotations

import time

from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.outages import Outages
from daemon.routing.reporter import Reporter
from kernel.limits import FULL, read_disk, read_levels
from kernel.model import Neighbour

_AGAIN = 3.0
"""Seconds between two looks."""


class FullTables:
    """Reads how full they are, for the metrics too, and reports the faults "tables" and "disk"."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._outages = Outages(reporter.journal, "table", reporter.log)
        self._next = 0.0

    def check(self, desired: Desired | None) -> None:
        """Look if it is due."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _AGAIN
        levels = tuple(read_levels(count_neighbours(desired)))
        self._reporter.counts.levels = levels
        full = {
            f"of {each.name}": f"{each}: {each.remedy}" for each in levels if each.share >= FULL
        }
        self._outages.update(full)
        self._reporter.faults.set("tables", "; ".join(full.values()))
        disk = read_disk(self._settings.data_dir)
        fault = f"{disk.fault}: {disk.remedy}" if disk and disk.fault else ""
        self._reporter.report_fault("disk", fault)


def count_neighbours(desired: Desired | None) -> int:
    """Permanent neighbours that podwire has made."""
    entries = (entry for peer in desired.peers.values() for entry in peer) if desired else ()
    return sum(isinstance(entry, Neighbour) for entry in entries)
