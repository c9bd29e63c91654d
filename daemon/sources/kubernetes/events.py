"""Events of a watch; what they contain is not trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from daemon.sources.kubernetes.api import failure_of
from daemon.sources.kubernetes.objects import UnusableObject

CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})
_KINDS = CHANGES | {"BOOKMARK", "ERROR"}


@dataclass(frozen=True, slots=True)
class Event:
    """An event (apimachinery, metav1.WatchEvent). thing: whatever is in the place of an object."""

    kind: str
    thing: Any


def parse_event(line: bytes, request: str) -> Event:
    """A line of a watch.

    Raises UnusableObject where it is no event, ApiError where the API ends the watch by it.
    """
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UnusableObject("is no JSON, or too deep") from error
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UnusableObject("is none")
    thing = event.get("object")
    if kind == "ERROR":
        raise failure_of(thing, request)
    return Event(kind, thing)
