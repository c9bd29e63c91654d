"""Lines of a watch: each one is an event, or harmless."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.kubernetes.api import ApiError
from daemon.sources.kubernetes.events import Event, parse_event
from daemon.sources.kubernetes.objects import UnusableObject


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
def test_an_event(kind: str) -> None:
    assert parse_event(json.dumps({"type": kind, "object": {"a": 1}}).encode(), "") == Event(
        kind, {"a": 1}
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b'{"a":' * 100_000, "too deep"),
        (b"[]", "is none"),
        (b'{"object":{}}', "is none"),
        (b'{"type":["ADDED"]}', "is none"),
        (b'{"type":"EXPLODED","object":{}}', "is none"),
    ],
)
def test_what_is_no_event(line: bytes, why: str) -> None:
    with pytest.raises(UnusableObject, match=why):
        parse_event(line, "")


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        ({"code": 410, "reason": "Expired", "message": "too old"}, 410, "with 410: too old"),
        ({"code": 500, "reason": "InternalError"}, 500, "with 500: InternalError"),
        ({"code": {}}, 0, "with 0"),
        (None, 0, "with 0"),
        ([], 0, "with 0"),
    ],
)
def test_an_error_ends_the_watch(status: object, code: int, message: str) -> None:
    line = json.dumps({"type": "ERROR", "object": status}).encode()
    with pytest.raises(ApiError, match=f"answers the watch of x {message}") as caught:
        parse_event(line, "the watch of x")
    assert caught.value.status == code


@given(st.binary(max_size=60))
def test_any_line_is_no_event(line: bytes) -> None:
    with pytest.raises(UnusableObject):
        parse_event(line, "")
