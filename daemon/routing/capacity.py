"""Whether the node has room left: addresses for pods, tables of the kernel, the store's disk."""

from __future__ import annotations

import time

from daemon.config.schema import Settings
from daemon.model import Desired
from daemon.outages import Outages
from daemon.routing.reporter import Reporter
from ipam.errors import IpamError
from ipam.store import read_store
from ipam.usage import Usage, read_usage
from kernel.limits import FULL, read_disk, read_levels
from kernel.model import Neighbour

_AGAIN = 3.0
"""Seconds between two checks."""


class Capacity:
    """Reads how full they are, and reports the faults "ranges", "tables" and "disk".

    How full tables are is for the metrics, too.
    """

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._tables = Outages(reporter.journal, "table", reporter.log)
        self._ranges = Outages(reporter.journal, "range", reporter.log)
        self._next = 0.0

    def check(self, desired: Desired | None) -> None:
        """Check if it is due."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _AGAIN
        self._check_tables(desired)
        self._check_ranges()
        disk = read_disk(self._settings.data_dir)
        fault = f"{disk.fault}: {disk.remedy}" if disk and disk.fault else ""
        self._reporter.report_fault("disk", fault)

    def _check_tables(self, desired: Desired | None) -> None:
        levels = tuple(read_levels(count_neighbours(desired)))
        self._reporter.counts.levels = levels
        full = {
            f"of {each.name}": f"{each}: {each.remedy}" for each in levels if each.share >= FULL
        }
        self._tables.update(full)
        self._reporter.faults.set("tables", "; ".join(full.values()))

    def _check_ranges(self) -> None:
        """Count the addresses of the daemon's own network."""
        conflist = self._settings.conflist
        if conflist is None:
            return
        try:
            found = read_store(self._settings.data_dir, read_usage) or ()
        except IpamError as error:
            self._reporter.report_failure(f"addresses were not counted: {error}")
            return
        full = {
            f"of IPv{usage.version}": describe_full(usage)
            for usage in found
            # As far as the ranges were used.
            if usage.network == conflist.name and 0 < usage.size <= usage.allocated
        }
        self._ranges.update(full)
        self._reporter.faults.set("ranges", "; ".join(full.values()))


def describe_full(usage: Usage) -> str:
    """The finding of a range without a free address."""
    what = f"all {usage.size} IPv{usage.version} addresses for pods are in use"
    return f"{what}: new pods get none: `podwire-ipam list` shows whose they are"


def count_neighbours(desired: Desired | None) -> int:
    """Permanent neighbours that podwire has made."""
    entries = (entry for peer in desired.peers.values() for entry in peer) if desired else ()
    return sum(isinstance(entry, Neighbour) for entry in entries)
