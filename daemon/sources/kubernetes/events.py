"""Events and lists of the API, as far as they are the same for every kind of object."""

from __future__ import annotations

import json
import re
from typing import Any

from daemon.sources.kubernetes.objects import Unusable, show
from daemon.sources.remote import SourceError

_POSITION = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_GONE = 410
BRACKETS_MAX = 500
"""Of one piece, a few dozen are usual. So nothing is deeper than Python's json reads, wherever it
is called: what one daemon can read others can."""


class Expired(Exception):
    """The API does not know the way from this position any more."""


class Restored(Expired):
    """The API counts from before this position: it was restored from a backup."""


class WatchFailed(Exception):
    """The API ended a watch, and said why."""


def is_position(text: str) -> bool:
    """Whether a text can be a resourceVersion."""
    return bool(_POSITION.match(text))


def read_json(data: bytes | None) -> Any:
    """What a piece of the API's answer holds; None: it was too large. Raises Unusable."""
    if data is None:
        raise Unusable("it is too large")
    if data.count(b"{") + data.count(b"[") > BRACKETS_MAX:
        raise Unusable("it has too many parts")
    try:
        return json.loads(data)
    except ValueError as error:
        raise Unusable("it is no JSON") from error


def position_of(root: object) -> str:
    """A list's resourceVersion. Raises SourceError."""
    position = find_position(root)
    if not position:
        raise SourceError("the Kubernetes API's list has no resourceVersion")
    return position


def find_position(thing: object) -> str:
    """The resourceVersion of anything, empty where it has none."""
    metadata = thing.get("metadata") if isinstance(thing, dict) else None
    position = metadata.get("resourceVersion") if isinstance(metadata, dict) else None
    return position if isinstance(position, str) and is_position(position) else ""


def failure_of(status: object) -> Exception:
    """What an event of type ERROR says (apimachinery, metav1.Status)."""
    known = status if isinstance(status, dict) else {}
    if known.get("code") == _GONE:
        return Expired()
    message = known.get("message")
    return WatchFailed(f"the Kubernetes API ends the watch: {show(str(message))}")
