"""The API's responses, taken apart as they arrive: lines of a watch, items of a list.

Their content is not trusted. Nothing here recurses, and no more than one bounded piece is held at a
time: an item that is too large, too deep or no JSON at all is passed over, and the ones before and
after it are taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from daemon.sources.kubernetes.objects import Unusable, show

PIECE_MAX = 2 << 20
"""Bytes of one object: etcd takes requests of at most 1.5 MiB (clientv3, --max-request-bytes)."""

# What nests is all that matters for where an item ends; brackets within a text do not. UTF-8 has no
# byte of these within a longer character. A text that is cut off matches nothing. Each part begins
# with another byte than what may follow it, so that nothing is tried twice: possessive quantifiers
# would say so, but CPython before 3.11.5 matches wrongly by them (gh-106052).
_TEXT = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_NEXT = re.compile(rb'[^][{}"]*(' + _TEXT + rb"|[][{}])?", re.DOTALL)
_NEXT_BRACKET = re.compile(rb'(?:[^][{}"]+|' + _TEXT + rb")*([][{}])?", re.DOTALL)
_STOP = re.compile(rb'["\\]')
_ITEMS = b'"items"'
_AROUND_MAX = 64 << 10
BRACKETS_MAX = 500
"""Of one piece; a few dozen are usual. With so few no piece nests deeper than Python's json can
read, however deep the caller's stack is: what one daemon can read others can."""
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
    """The members of a list object's `items`; a member that is too large is given as None."""

    def __init__(self, most: int = PIECE_MAX) -> None:
        self._most = most
        self._buffer = b""
        self._scanned = 0  # bytes of the buffer
        self._looked = 0  # the same, within a text that begins there and is cut off; else 0
        self._depth = 0
        self._in_items = False
        self._awaited = False
        self._begin: int | None = None  # where the current item begins in the buffer
        self._too_large = False
        self._around = bytearray()
        self._copied = 0  # bytes of the buffer, to `_around`
        self._is_whole = self._has_items = False

    def feed(self, chunk: bytes) -> Iterator[bytes | None]:
        """The items that end in this chunk. Raises Oversized where something else is too large."""
        self._buffer += chunk
        while token := self._token():
            if self._step(token):
                yield self._cut()
        self._forget()

    def rest(self) -> Any:
        """The object without its items. Raises ValueError where it is no whole list.

        An object without an array of items is none: who believed it would give up every route.
        """
        if not self._is_whole:
            raise ValueError("the list is cut off")
        if not self._has_items:
            raise ValueError("it has no items")
        return json.loads(bytes(self._around))

    def _token(self) -> bytes:
        """The next one that matters; empty where the buffer has no whole one any more."""
        if self._looked:
            return self._text()
        pattern = _NEXT_BRACKET if self._in_items else _NEXT
        match = pattern.match(self._buffer, self._scanned)
        assert match is not None  # noqa: S101 - nothing at all is a match
        self._scanned = match.end()
        token: bytes | None = match.group(1)
        if token is not None:
            return token
        if self._scanned == len(self._buffer):
            return b""
        # All that is left is a text; what was looked at of it is not looked at again.
        self._looked = self._scanned + 1
        return self._text()

    def _text(self) -> bytes:
        while stop := _STOP.search(self._buffer, self._looked):
            if stop.group() == b'"':
                begin, self._scanned, self._looked = self._scanned, stop.end(), 0
                return self._buffer[begin : self._scanned]
            if stop.end() == len(self._buffer):
                self._looked = stop.start()
                return b""
            self._looked = stop.end() + 1
        self._looked = len(self._buffer)
        return b""

    def _step(self, token: bytes) -> bool:
        """Whether an item ends here."""
        if token in (b"{", b"["):
            self._open(token)
        elif token in (b"}", b"]"):
            return self._close()
        elif self._depth == 1 and not self._in_items:
            # The array that follows this name is the list.
            self._awaited = token == _ITEMS
        return False

    def _open(self, token: bytes) -> None:
        self._depth += 1
        if self._in_items:
            if self._depth == 3:
                self._begin, self._too_large = self._scanned - 1, False
        elif self._awaited and self._depth == 2 and token == b"[":
            self._in_items, self._has_items, self._awaited = True, True, False
            self._copy()

    def _close(self) -> bool:
        self._depth -= 1
        if self._in_items and self._depth == 1:
            self._in_items, self._copied = False, self._scanned - 1
        self._is_whole = self._depth == 0
        return self._in_items and self._depth == 2

    def _cut(self) -> bytes | None:
        begin, self._begin = self._begin, None
        item = self._buffer[begin : self._scanned]
        return None if self._too_large or len(item) > self._most else item

    def _copy(self) -> None:
        self._around += self._buffer[self._copied : self._scanned]
        self._copied = self._scanned
        if len(self._around) > _AROUND_MAX:
            raise Oversized("what is around the list's items is too large")

    def _forget(self) -> None:
        """Drop what was looked at, but for an item that goes on."""
        if not self._in_items:
            self._copy()
        keep = self._scanned if self._begin is None or self._too_large else self._begin
        if self._scanned - keep > self._most:
            self._too_large, keep = True, self._scanned
        if len(self._buffer) - self._scanned > self._most:
            raise Oversized("a text in the list is too large")
        self._buffer = self._buffer[keep:]
        self._scanned -= keep
        self._looked = max(0, self._looked - keep)
        self._begin = None if self._begin is None else 0
        self._copied = 0 if self._in_items else self._scanned


def read_json(data: bytes | None) -> Any:
    """Parse one piece; None: it was too large. Raises Unusable."""
    if data is None:
        raise Unusable("it is too large")
    if data.count(b"{") + data.count(b"[") > BRACKETS_MAX:
        raise Unusable("it has too many parts")
    try:
        return json.loads(data)
    except ValueError as error:
        raise Unusable("it is no JSON") from error


def failure_of(status: object) -> Exception:
    """The exception for an event of type ERROR (apimachinery, metav1.Status)."""
    known = status if isinstance(status, dict) else {}
    if known.get("code") == _GONE:
        return Expired()
    return WatchFailed(f"the Kubernetes API ends the watch: {show(str(known.get('message')))}")
