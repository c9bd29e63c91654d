"""Taking the API's answers apart: whatever the chunks, and whatever is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.kubernetes.stream import Items, Lines, Oversized

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=8,
)
HARD = '\\"]}[{é\x00\ud83d\ude00 items'


def chunks(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


def drain(items: Items, data: Iterable[bytes]) -> list[bytes | None]:
    return [item for chunk in data for item in items.feed(chunk)]


def take_apart(data: bytes, size: int, most: int = 1 << 20) -> tuple[list[bytes | None], Any]:
    items = Items(most)
    found = drain(items, chunks(data, size))
    return found, items.rest()


@given(
    st.lists(st.dictionaries(st.text(max_size=4), JSON, max_size=3), max_size=5),
    st.dictionaries(st.text(max_size=5).filter(lambda k: k != "items"), JSON, max_size=3),
    st.integers(1, 40),
    st.booleans(),
)
def test_items_are_what_the_whole_list_has(
    members: list[dict[str, Any]], around: dict[str, Any], size: int, first: bool
) -> None:
    whole = {"items": members, **around} if first else {**around, "items": members}
    found, rest = take_apart(json.dumps(whole).encode(), size)
    assert [json.loads(item or b"") for item in found] == members
    assert rest == {**around, "items": []}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_what_looks_like_structure_within_text_is_text(size: int) -> None:
    whole = {"kind": "items", HARD: HARD, "items": [{HARD: [HARD, {}]}], "metadata": {"items": [1]}}
    data = json.dumps(whole, ensure_ascii=False).encode(errors="surrogatepass")
    found, rest = take_apart(data, size)
    assert [json.loads(item or b"") for item in found] == whole["items"]
    assert rest["metadata"] == {"items": [1]}


@pytest.mark.parametrize("size", [16, 100, 100_000])
def test_an_item_that_is_too_large_is_passed_over(size: int) -> None:
    large = {"name": "large", "spec": ["x" * 30] * 40}
    whole = {"items": [{"name": "a"}, large, {"name": "b"}], "metadata": {"resourceVersion": "7"}}
    found, rest = take_apart(json.dumps(whole).encode(), size, most=300)
    assert found == [b'{"name": "a"}', None, b'{"name": "b"}']
    assert rest["metadata"] == {"resourceVersion": "7"}


def test_an_item_that_is_too_deep_is_passed_on_as_it_is() -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    found, _ = take_apart(b'{"items":[' + deep + b',{"b":1}]}', 4096)
    assert found == [deep, b'{"b":1}']


def test_no_items_at_all() -> None:
    for text in (b'{"items":null,"metadata":{}}', b'{"items":{"a":1}}', b'{"metadata":{}}'):
        with pytest.raises(ValueError, match="no items"):
            take_apart(text, 3)
    assert take_apart(b'{"items":[1,"x",null]}', 3) == ([], {"items": []})


@pytest.mark.parametrize("data", [b"", b"{", b'{"items":[{"a":1}', b'{"items":[]', b'"x"', b"}}"])
def test_a_list_that_is_cut_off_is_no_list(data: bytes) -> None:
    items = Items()
    list(items.feed(data))
    with pytest.raises(ValueError, match=r"cut off|Expecting"):
        items.rest()


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_items_or_refused(data: bytes, size: int) -> None:
    items = Items(64)
    try:
        for chunk in chunks(b'{"items":[' + data, size):
            for item in items.feed(chunk):
                assert item is None or len(item) <= 64
        items.rest()
    except (ValueError, Oversized, RecursionError):
        pass


@pytest.mark.parametrize("head", [b'{"x":"', b'{"items":["', b'{"items":[{"a":"'])
def test_memory_is_bounded_whatever_is_sent(head: bytes) -> None:
    items = Items(1000)
    list(items.feed(head))
    with pytest.raises(Oversized, match="too large"):
        drain(items, (b"x" * 100 for _ in range(100_000)))


def test_what_is_around_the_items_is_bounded() -> None:
    items = Items()
    list(items.feed(b"{"))
    with pytest.raises(Oversized, match="around the list"):
        drain(items, (b'"%d":{},' % number for number in range(100_000)))


@given(st.lists(st.binary(max_size=20)), st.integers(1, 30))
def test_lines_are_those_of_the_whole(members: list[bytes], size: int) -> None:
    data = b"\n".join(members) + b"\n"
    lines = Lines(20)
    found = [line for chunk in chunks(data, size) for line in lines.feed(chunk)]
    wanted = [line for line in data.split(b"\n")[:-1] if len(line) > 20 or line.strip()]
    assert found == [line if len(line) <= 20 else None for line in wanted]


def test_a_line_that_is_too_long_is_passed_over() -> None:
    lines = Lines(10)
    found: list[bytes | None] = []
    for chunk in [b"a\n", b"x" * 8, b"x" * 8, b"xx\nb", b"\n\n  \nc"]:
        found += lines.feed(chunk)
    assert found == [b"a", None, b"b"]


def test_the_two_forms_of_a_text_are_told_apart() -> None:
    """A quote behind an even number of backslashes ends a text."""
    data = rb'{"items":[{"a":"\\"},{"b":"\\\""},{"c":"\\\\"}]}'
    found, _ = take_apart(data, 1)
    assert b",".join(item or b"" for item in found) in data
    assert len(found) == len(re.findall(rb'"[abc]":', data)) == 3


NETWORK = {
    "apiVersion": "podwire.dev/v1",
    "kind": "NodeNetwork",
    "metadata": {
        "name": "n2",
        "managedFields": [{"fieldsV1": {'k:{"uid":"9\\\\43"}': {}}, "manager": "podwired"}],
    },
    "spec": {"addresses": ["192.0.2.2"], "podCIDRs": ["10.244.2.0/24"]},
}


def test_a_list_may_be_cut_anywhere() -> None:
    whole = {"kind": "NodeNetworkList", "items": [NETWORK] * 3, "metadata": {"n": "\\"}}
    data = json.dumps(whole, separators=(",", ":")).encode()
    for place in range(1, len(data)):
        items = Items()
        found = drain(items, [data[:place], data[place:]])
        assert [json.loads(item or b"") for item in found] == [NETWORK] * 3
        assert items.rest() == {**whole, "items": []}
