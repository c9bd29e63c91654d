"""Pods of Kubernetes that another plugin attached, before podwire took over or beside it.

A pod none of whose attachments any store of podwire knows is another plugin's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.store_index import find_stores
from daemon.config.schema import Settings
from daemon.routing.reporter import Reporter
from daemon.routing.runtime_cache import RESULTS, Cached, is_over, list_files, read_file
from ipam.errors import IpamError
from ipam.store import Transaction, read_store

_AGAIN = 10.0
"""Seconds between two searches."""
_NAMED = 3


class UnwiredPods:
    """Searches for them every few seconds, and reports them as the fault "unwired"."""

    def __init__(self, settings: Settings, reporter: Reporter, results: Path = RESULTS) -> None:
        self._data_dir, self._reporter, self._results = settings.data_dir, reporter, results
        self._next = 0.0
        self._parsed: dict[str, tuple[int, Cached | None]] = {}

    def check(self) -> None:
        """Search for them if it is due."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _AGAIN
        try:
            found = self._find()
        except IpamError as error:
            self._reporter.report_failure(f"pods of other plugins were not searched for: {error}")
            return
        text = describe(found)
        if self._reporter.faults.set("unwired", text):
            self._reporter.log.warning(text)

    def _find(self) -> list[Cached]:
        """Raises IpamError."""
        cached = self._read()
        if not cached:
            return []
        known: set[str] = set()
        for folder in find_stores(DEFAULT_INDEX, self._data_dir):
            recorded = read_store(folder, Transaction.attachments) or ()
            known |= {owner.container_id for owner, _text in recorded}
        return [each for each in cached if each.container_id not in known]

    def _read(self) -> list[Cached]:
        """The cache's pods, but those that are gone; unchanged files are not read again."""
        parsed: dict[str, tuple[int, Cached | None]] = {}
        for name, changed in list_files(self._results).items():
            before = self._parsed.get(name)
            if before is None or before[0] != changed:
                before = changed, read_file(self._results / name)
            parsed[name] = before
        self._parsed = parsed
        return [each for changed, each in parsed.values() if each and not is_over(each, changed)]


def describe(found: Iterable[Cached]) -> str:
    """What is wrong, and what to do; empty where there are none."""
    plugins = {each.pod: each.plugin for each in found}
    if not plugins:
        return ""
    pods = [f"{pod} by {plugin}" if plugin else pod for pod, plugin in sorted(plugins.items())]
    named = ", ".join(pods[:_NAMED])
    more = ", ...: `podwirectl pods` lists them" if len(pods) > _NAMED else ""
    were = "1 pod was" if len(pods) == 1 else f"{len(pods)} pods were"
    text = f"{were} attached by another plugin ({named}{more})"
    return f"{text}: recreate them, and podwire attaches them"
