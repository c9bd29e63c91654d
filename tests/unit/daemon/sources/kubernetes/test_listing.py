"""Lists are read item by item, wherever the network cuts them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon.sources.kubernetes import listing
from daemon.sources.kubernetes.listing import parse_list
from daemon.sources.kubernetes.objects import UnusableObject

ITEMS = [{"metadata": {"name": name}} for name in ("a", "ü", '"]}', "\\")]
LIST = {"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": ITEMS}


def name_of(thing: Any) -> str:
    return str(thing["metadata"]["name"])


def read(data: bytes, size: int) -> tuple[list[str], str]:
    parts = (data[at : at + size] for at in range(0, len(data), size))
    return parse_list(parts, name_of, lambda thing: thing)


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize("indent", [None, 1])
def test_items_are_made_one_after_the_other(size: int, indent: int | None) -> None:
    data = json.dumps(LIST, indent=indent, ensure_ascii=False).encode()
    assert read(data, size) == (["a", "ü", '"]}', "\\"], "7")


@pytest.mark.parametrize("items", [[], None])
def test_a_list_may_be_empty(items: object) -> None:
    assert read(json.dumps({**LIST, "items": items}).encode(), 5) == ([], "7")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (json.dumps(LIST).encode()[:-3], "breaks off"),
        (b'{"items":[]}', "no resourceVersion"),
        (b'{"metadata":{"resourceVersion":"x y"},"items":[]}', "no resourceVersion"),
        (b"<html>", "breaks off"),
        (b'{"metadata":{"resourceVersion":"7"},"items":[' + b"[" * 100_000, "too deep|breaks off"),
        (b'{"metadata":{"resourceVersion":"7"},"items":["' + b"x" * 100_000, "more than"),
        (b"x" * 100_000, "more than"),
    ],
)
def test_what_is_no_list_is_refused(data: bytes, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LINE_MAX", 50_000)
    with pytest.raises(UnusableObject, match=why):
        read(data, 4096)
