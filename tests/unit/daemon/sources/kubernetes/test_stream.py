"""Parsing the API's responses: whatever the chunks, and whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
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


def drain(items: Items, data: Iterable[bytes]) -> list[Any]:
    found = [item for chunk in data for item in items.feed(chunk)]
    return [*found, *items.feed(b"", is_last=True)]


def take_apart(data: bytes, size: int, most: int = 1 << 20) -> tuple[list[Any], Any]:
    items = Items(most)
    found = drain(items, chunks(data, size))
    return found, items.rest()


@pytest.fixture(autouse=True, params=[1, 40, 64 << 10], scope="module")
def block(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many bytes are parsed at a time: that is not to be seen in what comes of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.sources.kubernetes.stream._BLOCK", request.param)
        yield request.param


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
    assert found == members
    assert rest == {**around, "items": []}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_what_looks_like_structure_within_text_is_text(size: int) -> None:
    whole = {"kind": "items", HARD: HARD, "items": [{HARD: [HARD, {}]}], "metadata": {"items": [1]}}
    data = json.dumps(whole, ensure_ascii=False).encode(errors="surrogatepass")
    found, rest = take_apart(data, size)
    assert found == whole["items"]
    assert rest["metadata"] == {"items": [1]}


@pytest.mark.parametrize("size", [16, 100, 100_000])
def test_an_item_that_is_too_large_is_refused(size: int) -> None:
    large = {"name": "large", "spec": ["x" * 30] * 40}
    whole = {"items": [{"name": "a"}, large, {"name": "b"}], "metadata": {"resourceVersion": "7"}}
    data = json.dumps(whole).encode()
    assert take_apart(data, size, most=len(data))[0] == whole["items"]
    items = Items(300)
    with pytest.raises(Oversized, match="too large"):
        drain(items, chunks(data[:1400], size))


def test_an_item_that_is_too_deep_is_refused() -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    with pytest.raises(RecursionError):
        take_apart(b'{"items":[' + deep + b',{"b":1}]}', 4096)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"items":null,"metadata":{}}', "no items"),
        (b'{"items":{"a":1}}', "no items"),
        (b'{"metadata":{}}', "no items"),
        (b"", "no items"),
        (b'{"items":[1,"x",null]}', "no objects"),
        (b'{"items":[{"a":1},1]}', "no objects"),
        (b'{"items":[{"a":1},[]]}', "no objects"),
        (b'{"items":[{"a":1}', "cut off"),
        (b'{"items":[{"a":1}]', "Expecting"),
        (b'{"items":[{"a":1},{"b":nothing}]}', "cut off, or no JSON"),
        (b'{"items":[{"a":1}]}}', "Extra data"),
        (b'\xff{"items":[]}', "decode"),
    ],
)
def test_what_is_no_whole_list_of_objects_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        take_apart(text, 3)


def test_an_empty_list() -> None:
    assert take_apart(b'{"items": [ ] }', 3) == ([], {"items": []})


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_bytes_are_items_or_refused(data: bytes, size: int) -> None:
    items = Items(64)
    try:
        for chunk in chunks(b'{"items":[' + data, size):
            for item in items.feed(chunk):
                assert isinstance(item, dict)
        list(items.feed(b"", is_last=True))
        items.rest()
    except (ValueError, Oversized, RecursionError):
        pass


@pytest.mark.parametrize("head", [b'{"x":"', b'{"items":["', b'{"items":[{"a":"'])
def test_memory_is_bounded_whatever_is_sent(head: bytes) -> None:
    items = Items(1000)
    list(items.feed(head))
    with pytest.raises(Oversized, match="too large"):
        drain(items, (b"x" * 100 for _ in range(100_000)))


@pytest.mark.parametrize("head", [b"{", b'{"items":[]'])
def test_what_is_around_the_items_is_bounded(head: bytes) -> None:
    items = Items()
    list(items.feed(head))
    with pytest.raises(Oversized, match="too large"):
        drain(items, (b',"%d":{}' % number for number in range(100_000)))


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
        assert found == [NETWORK] * 3
        assert items.rest() == {**whole, "items": []}
