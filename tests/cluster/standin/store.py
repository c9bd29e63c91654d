"""Objects, their one resource version, and the events that are remembered."""

from __future__ import annotations

import bisect
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace (empty for objects of the cluster) and name."""

_FIRST = 100


@dataclass(frozen=True, slots=True)
class Event:
    """A change. text: of the object, since then; before: until then, empty where it is new."""

    version: int
    type: str
    key: Key
    text: bytes
    before: bytes


@dataclass
class Collection:
    """One resource: its objects, each with its text, and its events, oldest first."""

    objects: dict[Key, Object] = field(default_factory=dict)
    texts: dict[Key, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class Store:
    """All collections. Every method is for a caller that holds `lock`, but `wait`."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = _FIRST
        self._path = path
        self._collections: dict[str, Collection] = {}
        if path.exists():
            self._load()
        self.oldest = self.version
        """Watches from before this are too old: like the real one's, the memory begins here."""

    def save(self) -> None:
        """Write everything down."""
        kept = {name: list(c.objects.values()) for name, c in self._collections.items()}
        self._path.write_text(json.dumps({"version": self.version, "objects": kept}))

    def _load(self) -> None:
        kept = json.loads(self._path.read_text())
        self.version = kept["version"]
        for resource, objects in kept["objects"].items():
            for made in objects:
                self._keep(self.of(resource), made)

    def of(self, resource: str) -> Collection:
        """A resource's collection."""
        return self._collections.setdefault(resource, Collection())

    def get(self, resource: str, key: Key) -> Object | None:
        return self.of(resource).objects.get(key)

    def put(self, resource: str, key: Key, made: Object) -> Object:
        """Keep an object, new or changed; as it is kept."""
        old = self.get(resource, key)
        if old is not None and _same(old, made):
            return old
        self.version += 1
        made["metadata"] = _stamp(made["metadata"], key, old, self.version)
        if old is None or made.get("spec") != old.get("spec"):
            made["metadata"]["generation"] = made["metadata"].get("generation", 0) + 1
        before = self.of(resource).texts.get(key, b"")
        self._keep(self.of(resource), made)
        self._tell(resource, key, "MODIFIED" if old else "ADDED", before)
        return made

    def remove(self, resource: str, key: Key) -> Object:
        """Remove an object that is there; its last state, with the version of its removal."""
        found = self.of(resource)
        self.version += 1
        gone = found.objects[key]
        gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
        before, found.texts[key] = found.texts[key], _text(gone)
        self._tell(resource, key, "DELETED", before)
        del found.objects[key], found.texts[key]
        return gone

    def _keep(self, found: Collection, made: Object) -> None:
        meta = made["metadata"]
        key = meta.get("namespace", ""), meta["name"]
        found.objects[key], found.texts[key] = made, _text(made)

    def _tell(self, resource: str, key: Key, kind: str, before: bytes) -> None:
        found = self.of(resource)
        found.events.append(Event(self.version, kind, key, found.texts[key], before))
        self.changed.notify_all()

    def since(self, resource: str, version: int, space: str, name: str) -> list[Event]:
        """Events after a version, of one namespace or (empty) of all, of one name or of all."""
        events = self.of(resource).events
        place = bisect.bisect_right(events, version, key=lambda event: event.version)
        return [event for event in events[place:] if _is_of(event.key, space, name)]

    def select(self, resource: str, space: str, name: str) -> Iterator[tuple[Key, bytes]]:
        """Texts of objects as in `since`, in the order of their names."""
        for key, text in sorted(self.of(resource).texts.items()):
            if _is_of(key, space, name):
                yield key, text

    def wait(self, seconds: float, due: Callable[[], bool]) -> None:
        """Let go of the lock until something changes that is due, or so long."""
        self.changed.wait_for(due, seconds)


def _is_of(key: Key, space: str, name: str) -> bool:
    return space in ("", key[0]) and name in ("", key[1])


def _same(old: Object, new: Object) -> bool:
    """Whether they differ in nothing but when who said so."""
    return _bare(old) == _bare(new)


def _bare(made: Object) -> Object:
    stamps = ("resourceVersion", "generation", "uid", "creationTimestamp")
    meta = {key: value for key, value in made["metadata"].items() if key not in stamps}
    fields = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in meta.pop("managedFields", [])
    ]
    return {**made, "metadata": {**meta, "managedFields": sorted(fields, key=repr)}}


def _stamp(meta: Object, key: Key, old: Object | None, version: int) -> Object:
    before = old["metadata"] if old else {}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        **meta,
        "name": key[1],
        **({"namespace": key[0]} if key[0] else {}),
        "uid": before.get("uid", str(uuid.uuid4())),
        "creationTimestamp": before.get("creationTimestamp", now),
        "generation": before.get("generation", 0),
        "resourceVersion": str(version),
    }


def _text(made: Object) -> bytes:
    text = json.dumps(made, separators=(",", ":"))
    # As Go writes it (encoding/json, Encoder.SetEscapeHTML).
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()
