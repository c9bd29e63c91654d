"""Whether the node has an address left for the next pod."""

from __future__ import annotations

import time

from daemon.config.schema import Settings
from daemon.outages import Outages
from daemon.routing.reporter import Reporter
from ipam.errors import IpamError
from ipam.files import Files
from ipam.store import open_store
from ipam.usage import Usage, read_usage

_AGAIN = 4.0
"""Seconds between two counts."""
_PATIENCE = 0.1
"""Seconds to wait for a store that others lock."""


class FullRanges:
    """Counts the addresses of the daemon's own network, and reports the fault "ranges"."""

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        self._settings, self._reporter = settings, reporter
        self._outages = Outages(reporter.journal, "range", reporter.log)
        self._next = 0.0

    def check(self) -> None:
        """Count if it is due."""
        now, conflist = time.monotonic(), self._settings.conflist
        if now < self._next or conflist is None:
            return
        self._next = now + _AGAIN
        try:
            full = {each.version: each for each in self._read() if is_full(each, conflist.name)}
        except IpamError as error:
            self._reporter.report_failure(f"addresses were not counted: {error}")
            return
        texts = {version: describe_full(usage) for version, usage in full.items()}
        self._outages.update({f"of IPv{version}": text for version, text in texts.items()})
        self._reporter.faults.set("ranges", "; ".join(texts.values()))

    def _read(self) -> tuple[Usage, ...]:
        folder = self._settings.data_dir
        if not Files(folder).database.exists():
            return ()
        opened = open_store(folder, create=False, patience=_PATIENCE)
        with opened as store, store.read() as tx:
            return read_usage(tx)


def is_full(usage: Usage, network: str) -> bool:
    """Whether a network has no address left, as far as its ranges were used."""
    return usage.network == network and 0 < usage.size <= usage.allocated


def describe_full(usage: Usage) -> str:
    """The finding of a range without a free address."""
    what = f"all {usage.size} IPv{usage.version} addresses for pods are in use"
    return f"{what}: new pods get none: `podwire-ipam list` shows whose they are"
