"""A watch: events from a version on, bookmarks, and the end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.cluster.standin.resources import Place
from tests.cluster.standin.store import Store

_DEFAULT_SECONDS = 1800
_BEFORE_THE_END = 2.0
"""A last bookmark comes so long before a watch ends (apiserver, cacher.go, bookmarkTimer)."""

Send = Callable[[bytes], None]


class Watching:
    """One watch of one client."""

    def __init__(
        self, store: Store, place: Place, query: Mapping[str, str], bookmark_seconds: float
    ) -> None:
        self._store, self._place = store, place
        self._name = query.get("fieldSelector", "").removeprefix("metadata.name=")
        self._bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        self._every = bookmark_seconds
        seconds = float(query.get("timeoutSeconds") or 0) or _DEFAULT_SECONDS * random.uniform(1, 2)
        self._end = time.monotonic() + seconds
        version = query.get("resourceVersion", "")
        self._from = int(version) if version not in ("", "0") else None

    def run(self, send: Send) -> None:
        """Send events until the time is over. Raises OSError where the client is gone."""
        position = self._begin(send)
        if position is None:
            return
        bookmark, marked = self._next_bookmark(), position
        while (now := time.monotonic()) < self._end:
            with self._store.lock:
                until = min(self._end, bookmark) if self._bookmarks else self._end
                self._store.wait(until - now, lambda at=position: self._is_due(at))  # type: ignore[misc]
                lines = [e.line for e in self._events(position)]
                position = max(position, self._store.version)
            if lines:
                send(b"\n".join(lines) + b"\n")
            if self._bookmarks and time.monotonic() >= bookmark:
                # One that says nothing new is not sent (cache_watcher.go, process).
                if position > marked:
                    send(self._bookmark(position))
                    marked = position
                bookmark = self._next_bookmark()

    def _begin(self, send: Send) -> int | None:
        """The position after what comes first; None where that is the end."""
        with self._store.lock:
            oldest, version = self._store.oldest, self._store.version
            if self._from is None:
                found = self._store.select(self._place.resource.key, self._place.space, self._name)
                lines = [b'{"type":"ADDED","object":%s}\n' % text for _, text in found]
        if self._from is None:
            send(b"".join(lines))
            return version
        if self._from < oldest:
            send(_too_old(self._from, oldest))
            return None
        return self._from

    def _is_due(self, position: int) -> bool:
        events = self._store.of(self._place.resource.key).events
        return bool(events) and events[-1].version > position

    def _events(self, position: int) -> list[Any]:
        key, space = self._place.resource.key, self._place.space
        return self._store.since(key, position, space, self._name)

    def _next_bookmark(self) -> float:
        now = time.monotonic()
        last = self._end - _BEFORE_THE_END
        return min(now + self._every, last) if now < last else self._end + 1

    def _bookmark(self, position: int) -> bytes:
        made = {
            "kind": self._place.resource.kind,
            "apiVersion": self._place.resource.api_version,
            "metadata": {"resourceVersion": str(position), "creationTimestamp": None},
        }
        return json.dumps({"type": "BOOKMARK", "object": made}).encode() + b"\n"


def _too_old(wanted: int, oldest: int) -> bytes:
    message = f"too old resource version: {wanted} ({oldest})"
    made = status(410, "Expired", message)
    return json.dumps({"type": "ERROR", "object": made}).encode() + b"\n"


def status(code: int, reason: str, message: str, **details: object) -> dict[str, Any]:
    """A Status of failure."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        **({"details": details} if details else {}),
        "code": code,
    }
