"""The API's responses, parsed as they arrive: lines of a watch, items of a list.

Their content is not trusted: no more than one bounded piece is in memory at a time.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from daemon.sources.kubernetes.objects import UnusableObject, show

PIECE_MAX = 2 << 20
"""Bytes of one object: etcd takes requests of at most 1.5 MiB (clientv3, --max-request-bytes)."""
_AROUND_MAX = 64 << 10
_BLOCK = 64 << 10
"""Bytes after which an item that is cut off is tried again; so a slow sender costs no more."""
_ITEMS = re.compile(r'"items"\s*:\s*\[')
_GAP = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()
_GONE = 410


class Expired(Exception):
    """The API has no history from this position on any more (410 Gone)."""


class WatchFailed(Exception):
    """The API ended a watch with an error; the message has its words."""


class Oversized(Exception):
    """A piece is larger than any that the API could have stored."""


class Lines:
    """Lines of a stream; one that is too long is given as None."""

    def __init__(self, most: int = PIECE_MAX) -> None:
        self._most = most
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """The lines that end in this chunk, without their end and without empty ones."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            line = self._finish(chunk[start:end])
            start = end + 1
            if line is None or line.strip():
                yield line
        self._append(chunk[start:])

    def _finish(self, tail: bytes) -> bytes | None:
        self._append(tail)
        line = None if self._skipping else bytes(self._rest)
        self._rest.clear()
        self._skipping = False
        return line

    def _append(self, tail: bytes) -> None:
        if len(self._rest) + len(tail) > self._most:
            self._skipping = True
            self._rest.clear()
        elif not self._skipping:
            self._rest += tail


class Items:
    """The members of a list object's `items`, which must be objects."""

    def __init__(self, most: int = PIECE_MAX) -> None:
        self._most = most
        self._decode = codecs.getincrementaldecoder("utf-8")(
            "surrogatepass"
        ).decode  # as json.loads
        self._block = bytearray()
        self._head = ""
        """All up to the bracket that opens the items."""
        self._text = ""
        """What was received and not yet parsed."""
        self._is_over = False

    def feed(self, chunk: bytes, *, is_last: bool = False) -> Iterator[Any]:
        """The items that are complete by now. Raises ValueError, RecursionError, Oversized."""
        self._block += chunk
        if len(self._block) < _BLOCK and not is_last:
            return
        self._text += self._decode(bytes(self._block), is_last)
        self._block.clear()
        if not self._head and (match := _ITEMS.search(self._text)):
            self._head, self._text = self._text[: match.end()], self._text[match.end() :]
        if self._head and not self._is_over:
            yield from self._members()
        most = self._most if self._head and not self._is_over else _AROUND_MAX
        if max(len(self._text) - most, len(self._head) - _AROUND_MAX) > 0:
            raise Oversized("a part of the list is too large, or no JSON")

    def _members(self) -> Iterator[Any]:
        place = 0
        while match := _GAP.match(self._text, place):
            place = match.end()
            if not self._text.startswith("{", place):
                self._is_over = place < len(self._text)  # what it must be, `rest` checks
                break
            try:
                member, place = _DECODER.raw_decode(self._text, place)
            except json.JSONDecodeError:
                break  # it is cut off; or no JSON, and so never complete
            yield member
        self._text = self._text[place:]

    def rest(self) -> Any:
        """The object without its items, after the last `feed`.

        Raises ValueError where it is no whole list. An object without an array of items is none:
        with it all routes would be withdrawn.
        """
        if not self._is_over:
            raise ValueError("the list is cut off, or no JSON" if self._head else "it has no items")
        root = json.loads(self._head + self._text)
        if root["items"]:
            raise ValueError("its items are no objects")
        return root


def read_json(data: bytes | None) -> Any:
    """Parse one line; None: it was too long. Raises UnusableObject."""
    if data is None:
        raise UnusableObject("it is too large")
    try:
        return json.loads(data)
    except ValueError as error:
        raise UnusableObject("it is no JSON") from error
    except RecursionError as error:
        raise UnusableObject("it is too deep") from error


def failure_of(status: object) -> Exception:
    """The exception for an event of type ERROR (apimachinery, metav1.Status)."""
    known = status if isinstance(status, dict) else {}
    if known.get("code") == _GONE:
        return Expired()
    return WatchFailed(f"the Kubernetes API ends the watch: {show(str(known.get('message')))}")
