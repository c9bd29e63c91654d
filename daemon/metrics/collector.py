"""Everything that is shown, read anew for each scrape."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from daemon.cni_server.call_counters import Tally
from daemon.metrics import families as f
from daemon.metrics.readings import (
    Shares,
    Values,
    find_unreachable,
    read_calls,
    read_peers,
    read_probes,
    read_source,
    read_status,
    read_usage,
    read_work,
)
from daemon.routing.counters import Counts, Seen

if TYPE_CHECKING:
    from daemon.config.schema import Settings
    from daemon.journal import Journal
    from daemon.probes.prober import Health

_PATIENCE = 0.5
"""Seconds that a scrape waits for a store that others lock."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values come from. health is None where peers are not probed."""

    settings: Settings
    tally: Tally
    counts: Counts
    journal: Journal
    health: Health | None = None


class Collector:
    """Reads in the namespace of the thread that scrapes; one thread at a time."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._shares = Shares()
        self._unread = {"dns": 0, "ipam": 0}

    def read(self) -> Values:
        """All values. What cannot be read is left out, and counted."""
        now, sources = time.monotonic(), self._sources
        values = read_calls(sources.tally.read())
        values |= read_work(sources.counts, sources.journal, now)
        values |= self._read_info() | _read_processes(sources.tally)
        seen = sources.counts.seen
        if seen is not None:
            values |= self._read_seen(seen, now)
        values |= self._attempt("ipam", lambda: self._read_usage(seen))
        values |= self._attempt("dns", _read_dns)
        return values | {f.UNREAD: {(part,): times for part, times in self._unread.items()}}

    def _attempt(self, part: str, read: Callable[[], Values]) -> Values:
        try:
            return read()
        except Exception:  # whatever it is, the rest is worth showing
            self._unread[part] += 1
            return {}

    def _read_info(self) -> Values:
        settings = self._sources.settings
        labels = read_version(), settings.node, settings.backend, settings.source.kind
        return {f.INFO: {labels: 1.0}}

    def _read_seen(self, seen: Seen, now: float) -> Values:
        values, health = read_status(seen.status) | read_source(seen, now), self._sources.health
        peers = health.peers() if health else ()
        if health:
            values |= read_peers(peers) | read_probes(health.tally, health.terminated)
        if seen.snapshot:
            unreachable = find_unreachable(seen.desired, peers)
            values |= self._shares.read(seen.snapshot, self._sources.settings.node, unreachable)
        return values

    def _read_usage(self, seen: Seen | None) -> Values:
        from ipam.files import Files
        from ipam.store import open_store
        from ipam.usage import read_usage as read_store

        settings = self._sources.settings
        network = settings.conflist.name if settings.conflist else ""
        prefixes = seen.desired.pod_cidrs if seen and seen.desired else ()
        if not Files(settings.data_dir).database.exists():
            return read_usage((), network, prefixes)
        # Opened anew: between scrapes it would keep a cache of pages for nothing.
        opened = open_store(settings.data_dir, create=False, patience=_PATIENCE)
        with opened as store, store.read() as tx:
            return read_usage(read_store(tx), network, prefixes)


def _read_processes(tally: Tally) -> Values:
    serving, dead = tally.rows - tally.dead, tally.dead
    return {f.CALL_PROCESSES: {("serving",): serving, ("dead",): dead}}


def _read_dns() -> Values:
    from kernel.nftables.dns_counters import count_dns

    found = count_dns()
    if found is None:
        return {}
    return {f.DNS_QUERIES: {(): found.queries}, f.DNS_ANSWERS: {(): found.answers}}


@cache
def read_version() -> str:
    """The version of podwire that is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("podwire")
    except PackageNotFoundError:
        return "unknown"
