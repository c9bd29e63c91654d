"""Pods of Kubernetes that another plugin attached, before podwire took over or beside it.

libcni keeps a file for each attachment while it lasts, with network, container and CNI_ARGS
(libcni/api.go, cachedInfo). A pod none of whose attachments any store of podwire knows is another
plugin's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.store_index import find_stores
from daemon.config.schema import Settings
from daemon.files import open_regular
from daemon.routing.reporter import Reporter
from ipam.errors import IpamError
from ipam.files import Files
from ipam.store import open_store

RESULTS = Path("/var/lib/cni/results")
"""libcni's cache, unless the runtime moved it (libcni.CacheDir)."""
_AGAIN = 10.0
"""Seconds between two searches."""
_PATIENCE = 0.1
"""Seconds to wait for a store that others lock."""
_NAMED = 3
_READ_MAX = 1 << 20  # bytes
_FILES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Cached:
    """An attachment that a runtime had made for a pod (namespace and name)."""

    container_id: str
    pod: str


def parse_cached(data: bytes) -> Cached | None:
    """A file of the cache; None for what is none, or not of a pod of Kubernetes."""
    try:
        raw = json.loads(data)
        arguments = dict(raw["cniArgs"])
        found = Cached(
            raw["containerId"],
            f"{arguments['K8S_POD_NAMESPACE']}/{arguments['K8S_POD_NAME']}",
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return found if isinstance(found.container_id, str) else None


class UnwiredPods:
    """Searches for them every few seconds, and reports them as the fault "unwired"."""

    def __init__(self, settings: Settings, reporter: Reporter, results: Path = RESULTS) -> None:
        self._data_dir, self._reporter, self._results = settings.data_dir, reporter, results
        self._next = 0.0
        self._parsed: dict[str, tuple[int, Cached | None]] = {}
        self.count = 0

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
        self.count = len(found)
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
            if Files(folder).database.exists():
                with (
                    open_store(folder, create=False, patience=_PATIENCE) as store,
                    store.read() as tx,
                ):
                    known |= {owner.container_id for owner, _text in tx.attachments()}
        return [each for each in cached if each.container_id not in known]

    def _read(self) -> list[Cached]:
        """What the cache has; files that did not change are not read again."""
        try:
            with os.scandir(self._results) as entries:
                found = {e.name: e.stat().st_mtime_ns for e in entries if e.is_file()}
        except OSError:
            found = {}
        parsed: dict[str, tuple[int, Cached | None]] = {}
        for name, changed in sorted(found.items())[:_FILES_MAX]:
            before = self._parsed.get(name)
            is_same = before is not None and before[0] == changed
            parsed[name] = before if before and is_same else (changed, self._parse(name))
        self._parsed = parsed
        return [cached for _changed, cached in parsed.values() if cached]

    def _parse(self, name: str) -> Cached | None:
        try:
            with open_regular(self._results / name) as file:
                return parse_cached(file.read(_READ_MAX))
        except OSError:
            return None


def describe(found: Iterable[Cached]) -> str:
    """What is wrong, and what to do; empty where there are none."""
    pods = sorted({each.pod for each in found})
    if not pods:
        return ""
    named = ", ".join(pods[:_NAMED]) + (", ..." if len(pods) > _NAMED else "")
    were = "1 pod was" if len(pods) == 1 else f"{len(pods)} pods were"
    return f"{were} attached by another plugin ({named}): recreate them, and podwire attaches them"
