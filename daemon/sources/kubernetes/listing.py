"""A list of the API, parsed while it arrives: of thousands of pods, only what is kept of them."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

from daemon.sources.http import LINE_MAX
from daemon.sources.kubernetes.objects import UnusableObject, find_position

_ITEMS = re.compile(r'"items"\s*:\s*(\[|null)')
_BETWEEN = re.compile(r"[\s,]*")


def parse_list(
    parts: Iterable[bytes], make: Callable[[Any], Any], hook: Callable[[dict[str, Any]], Any]
) -> tuple[list[Any], str]:
    """What `make` makes of the items of a list, and the list's resourceVersion.

    hook: as json.loads takes it. Raises UnusableObject. The API server writes the items last
    (apimachinery, metav1.List), so that the part before them is an object but for its end.
    """
    decoder, text, place = json.JSONDecoder(object_hook=hook), "", 0
    position, found, tried = "", list[Any](), 0
    unicode = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for part in chain(parts, (b"",)):
        text, place = text[place:] + unicode.decode(part), 0
        if not position:
            if (begin := _ITEMS.search(text)) is None:
                _check_size(text)
                continue
            position, place = _read_position(text[: begin.start()]), begin.end()
            if begin[1] == "null":
                return found, position
        # A large item is not parsed anew with each of its parts.
        while not part or len(text) - place >= 2 * tried:
            if between := _BETWEEN.match(text, place):
                place = between.end()
            if text[place : place + 1] == "]":
                return found, position
            try:
                thing, place = decoder.raw_decode(text, place)
            except json.JSONDecodeError:
                tried = len(text) - place
                break  # the rest of it follows
            except RecursionError as error:
                raise UnusableObject("is too deep") from error
            found.append(make(thing))
            tried = 0
        _check_size(text[place:])
    raise UnusableObject("breaks off")


def _check_size(text: str) -> None:
    if len(text) > LINE_MAX:
        raise UnusableObject(f"has more than {LINE_MAX} bytes without an item")


def _read_position(head: str) -> str:
    """The resourceVersion in what is before the items."""
    try:
        position = find_position(json.loads(head.rstrip().rstrip(",") + "}"))
    except (ValueError, RecursionError):
        position = ""
    if not position:
        raise UnusableObject("has no resourceVersion before its items")
    return position
