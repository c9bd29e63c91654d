"""A watch: events from a version on, bookmarks, and the end."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.cluster.standin.resources import Place
from tests.cluster.standin.store import Event, Store

_DEFAULT_SECONDS = 1800
_BEFORE_THE_END = 2.0
"""A last bookmark comes so long before a watch ends (apiserver, cacher.go, bookmarkTimer)."""

Send = Callable[[bytes], None]


def read_selectors(query: Mapping[str, str]) -> tuple[str, Callable[[bytes], bool]]:
    """The name that objects must have, empty for any, and a check of their text.

    Of label selectors those that name values (`app=web,role=db`) are known.
    """
    key, _separator, value = query.get("fieldSelector", "").partition("=")
    node = value if key == "spec.nodeName" else ""
    labels = dict(
        word.split("=") for word in query.get("labelSelector", "").split(",") if word
    ).items()

    def fits(text: bytes) -> bool:
        if not (node or labels):
            return True
        made: dict[str, Any] = json.loads(text)
        is_there = not node or made.get("spec", {}).get("nodeName") == node
        return is_there and labels <= dict(made["metadata"].get("labels", {})).items()

    return "" if node else value, fits


class Watching:
    """One watch of one client."""

    def __init__(
        self, store: Store, place: Place, query: Mapping[str, str], bookmark_seconds: float
    ) -> None:
        self._store, self._place = store, place
        self._name, self._fits = read_selectors(query)
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
                lines = [*filter(None, map(self._line, self._events(position)))]
                position = max(position, self._store.version)
            if lines:
                send(b"\n".join(lines) + b"\n")
            if self._bookmarks and time.monotonic() >= bookmark:
                # One that says nothing new is not sent (cache_watcher.go, process).
                if position > marked:
                    send(self._bookmark(position))
                    marked = position
                bookmark = self._next_bookmark()

    def _line(self, event: Event) -> bytes:
        """What is sent of an event; an object is gone, too, when it does not fit any more."""
        had, has = (bool(text) and self._fits(text) for text in (event.before, event.text))
        if not (had or has):
            return b""
        kind = event.type if had and has else "ADDED" if has else "DELETED"
        return b'{"type":"%s","object":%s}' % (kind.encode(), event.text)

    def _begin(self, send: Send) -> int | None:
        """The position after what comes first; None where that is the end."""
        with self._store.lock:
            oldest, version = self._store.oldest, self._store.version
            if self._from is None:
                found = self._store.select(self._place.resource.key, self._place.space, self._name)
                fitting = [text for _, text in found if self._fits(text)]
                lines = [b'{"type":"ADDED","object":%s}\n' % text for text in fitting]
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
