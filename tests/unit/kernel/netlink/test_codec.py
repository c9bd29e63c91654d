"""Netlink's byte layout: there and back, and garbage that must neither raise nor hang."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.netlink import codec
from kernel.netlink.codec import Message
from kernel.netlink.socket import _read_error

KINDS = st.integers(0, codec.NLA_TYPE_MASK)
U32 = st.integers(0, 2**32 - 1)
messages = st.builds(Message, st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=60))
pairs = st.lists(st.tuples(KINDS, st.binary(max_size=40)), max_size=6)


@given(st.lists(st.tuples(messages, U32), max_size=5))
def test_a_batch_is_read_back_message_by_message(batch: list[tuple[Message, int]]) -> None:
    packed = b"".join(codec.pack(message, sequence) for message, sequence in batch)
    wanted = [(s, m.type, m.flags | codec.NLM_F_REQUEST, m.body) for m, s in batch]
    assert [(s, m.type, m.flags, m.body) for s, _, m in codec.unpack(packed)] == wanted


@given(messages, U32)
def test_messages_end_where_the_next_may_begin(message: Message, sequence: int) -> None:
    packed = codec.pack(message, sequence)
    length = struct.unpack_from("=I", packed)[0]
    assert length == 16 + len(message.body)
    assert len(packed) % 4 == 0
    assert 0 <= len(packed) - length < 4


@given(pairs)
def test_attributes_are_read_back_in_order(wanted: list[tuple[int, bytes]]) -> None:
    packed = b"".join(codec.attribute(kind, payload) for kind, payload in wanted)
    assert len(packed) % 4 == 0
    assert list(codec.attribute_list(packed)) == wanted
    assert codec.attributes(packed) == dict(wanted)


@given(KINDS, pairs)
def test_a_nested_attribute_is_an_attribute(kind: int, inner: list[tuple[int, bytes]]) -> None:
    packed = codec.nested(kind, *(codec.attribute(k, payload) for k, payload in inner))
    assert struct.unpack_from("=H", packed, 2)[0] == kind | codec.NLA_F_NESTED
    [(found, payload)] = codec.attribute_list(packed)
    assert found == kind
    assert list(codec.attribute_list(payload)) == inner


@given(KINDS, U32)
def test_numbers_have_the_byte_order_of_their_subsystem(kind: int, value: int) -> None:
    assert codec.number(codec.attributes(codec.u32(kind, value))[kind]) == value
    assert int.from_bytes(codec.attributes(codec.be32(kind, value))[kind], "big") == value


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_strings_are_read_back(value: str) -> None:
    payload = codec.attributes(codec.text(3, value))[3]
    assert payload.endswith(b"\0")
    assert codec.string(payload) == value


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_read_to_an_end(data: bytes) -> None:
    assert sum(len(message.body) for _, _, message in codec.unpack(data)) <= len(data)
    assert sum(len(payload) for _, payload in codec.attribute_list(data)) <= len(data)
    assert isinstance(codec.string(data), str)


@given(st.integers(0, 133), st.text("abc ", max_size=20))
def test_the_kernels_text_is_found_behind_the_request(code: int, words: str) -> None:
    """struct nlmsgerr (linux/netlink.h): the request's header without its body, the TLVs."""
    body = struct.pack("=i", -code) + struct.pack("=IHHII", 20, 20, 5, 1, 0)
    flags = codec.NLM_F_ACK_TLVS
    tlvs = codec.text(codec.NLMSGERR_ATTR_MSG, words)
    assert _read_error(Message(codec.NLMSG_ERROR, flags, body + tlvs)) == (code, words)
    bare = Message(codec.NLMSG_ERROR, flags & ~codec.NLM_F_ACK_TLVS, body)
    assert _read_error(bare) == (code, "")


def test_who_made_a_change_stands_in_the_header() -> None:
    header = struct.pack("=IHHII", 20, 16, 0, 7, 4711)
    [(sequence, port, message)] = codec.unpack(header + b"body")
    assert (sequence, port, message.type, message.body) == (7, 4711, 16, b"body")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (codec.attribute(1, b"a") + codec.attribute(2, b"bc") + codec.attribute(1, b"d"), b"a"),
        (codec.attribute(2, b"bc") + codec.attribute(1 | codec.NLA_F_NESTED, b"d"), b"d"),
        (codec.attribute(2, b"bc"), None),
        (codec.attribute(1, b""), b""),
        (b"", None),
        (struct.pack("=HH", 3, 1) + codec.attribute(1, b"x"), None),
    ],
)
def test_the_first_attribute_of_a_type(data: bytes, found: bytes | None) -> None:
    assert codec.first_attribute(bytes(8) + data, 8, 1) == found


def test_small_values() -> None:
    assert codec.attributes(codec.u8(3, 7))[3] == b"\7"
    assert codec.mac_bytes("02:00:00:00:00:ff") == b"\2\0\0\0\0\xff"
    assert str(Message(1, 0, b"", ("add", 5))) == "add 5"
    assert str(Message(1, 0, b"", "add six")) == "add six"
    assert codec.pack(Message(1, 2, b""), 3, 4)[6:8] == struct.pack("=H", 2 | 4 | 1)
