"""DNS messages: what is asked is read back, and whatever is answered is parsed or refused."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.dns.codec import BadAnswer, BadName, Query, Reply, decode, encode, encode_name

QUERY = Query(7, "db.shop.example", "A")
LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=6).map(".".join)


def answer(
    query: Query, *records: tuple[int, bytes], flags: int = 0x8180, owner: bytes = b"\xc0\x0c"
) -> bytes:
    """An answer with records of these types, whose owner is the question's name."""
    head = struct.pack("!6H", query.number, flags, 1, len(records), 0, 0)
    body = b"".join(
        owner + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for kind, data in records
    )
    return head + encode(query)[12:] + body


@given(NAME, st.sampled_from(["A", "AAAA"]), st.integers(0, 0xFFFF))
@settings(max_examples=30)
def test_the_answer_to_any_question_is_read(name: str, kind: str, number: int) -> None:
    query = Query(number, name, kind)
    address = ip_address("10.0.0.9" if kind == "A" else "fd00::9")
    code = 1 if kind == "A" else 28
    found = decode(answer(query, (5, encode_name(name)), (code, address.packed)), query)
    assert found == Reply("NOERROR", (address,))


@pytest.mark.parametrize(("code", "name"), [(2, "SERVFAIL"), (3, "NXDOMAIN"), (5, "REFUSED")])
def test_codes(code: int, name: str) -> None:
    assert decode(answer(QUERY, flags=0x8180 | code), QUERY) == Reply(name)
    bare = struct.pack("!6H", 7, 0x8180 | code, 0, 0, 0, 0)
    assert decode(bare, QUERY) == Reply(name)


def test_a_truncated_answer_says_so() -> None:
    whole = answer(QUERY, (1, b"\x0a\0\0\1"), (1, b"\x0a\0\0\2"), flags=0x8380)
    assert decode(whole[:-16], QUERY) == Reply("NOERROR", (ip_address("10.0.0.1"),), True)


@pytest.mark.parametrize(
    "data",
    [
        answer(Query(8, QUERY.name, "A")),
        answer(Query(7, "db.shop.other", "A")),
        answer(Query(7, QUERY.name, "AAAA")),
        encode(QUERY),
        answer(QUERY, (1, b"\x0a\0\0")),
        answer(QUERY, (1, b"\x0a\0\0\1"), owner=b"\xc0\xff"),
        answer(QUERY, (1, b"\x0a\0\0\1"))[:-2],
        b"",
    ],
)
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        decode(data, QUERY)


@given(st.binary(max_size=80), st.integers(0, 60))
@settings(max_examples=300)
def test_any_bytes_are_an_answer_or_refused(data: bytes, keep: int) -> None:
    mixed = answer(QUERY, (1, b"\x0a\0\0\1"))[:keep] + data
    for each in (data, mixed):
        try:
            found = decode(each, QUERY)
        except BadAnswer:
            continue
        assert isinstance(found, Reply)


def test_names_in_a_circle_end() -> None:
    loop = answer(QUERY, (1, b"\x0a\0\0\1"), owner=b"\xc0\x21")
    with pytest.raises(BadAnswer):
        decode(loop, QUERY)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, ".".join(["x" * 50] * 6), "bücher.example"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(BadName):
        encode_name(name)
