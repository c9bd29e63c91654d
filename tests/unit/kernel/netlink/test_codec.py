"""Netlink's byte layout: there and back, and garbage that must neither raise nor hang."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.netlink import codec as wire
from kernel.netlink.codec import Message
from kernel.netlink.socket import _read_error

KINDS = st.integers(0, wire.NLA_TYPE_MASK)
U32 = st.integers(0, 2**32 - 1)
messages = st.builds(Message, st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=60))
pairs = st.lists(st.tuples(KINDS, st.binary(max_size=40)), max_size=6)


@given(st.lists(st.tuples(messages, U32), max_size=5))
def test_a_batch_is_read_back_message_by_message(batch: list[tuple[Message, int]]) -> None:
    packed = b"".join(wire.pack(message, sequence) for message, sequence in batch)
    wanted = [(s, m.type, m.flags | wire.NLM_F_REQUEST, m.body) for m, s in batch]
    assert [(s, m.type, m.flags, m.body) for s, m in wire.unpack(packed)] == wanted


@given(messages, U32)
def test_messages_end_where_the_next_may_begin(message: Message, sequence: int) -> None:
    packed = wire.pack(message, sequence)
    length = struct.unpack_from("=I", packed)[0]
    assert length == 16 + len(message.body)
    assert len(packed) % 4 == 0
    assert 0 <= len(packed) - length < 4


@given(pairs)
def test_attributes_are_read_back_in_order(wanted: list[tuple[int, bytes]]) -> None:
    packed = b"".join(wire.attribute(kind, payload) for kind, payload in wanted)
    assert len(packed) % 4 == 0
    assert list(wire.attribute_list(packed)) == wanted
    assert wire.attributes(packed) == dict(wanted)


@given(KINDS, pairs)
def test_a_nested_attribute_is_an_attribute(kind: int, inner: list[tuple[int, bytes]]) -> None:
    packed = wire.nested(kind, *(wire.attribute(k, payload) for k, payload in inner))
    assert struct.unpack_from("=H", packed, 2)[0] == kind | wire.NLA_F_NESTED
    [(found, payload)] = wire.attribute_list(packed)
    assert found == kind
    assert list(wire.attribute_list(payload)) == inner


@given(KINDS, U32)
def test_numbers_have_the_byte_order_of_their_subsystem(kind: int, value: int) -> None:
    assert wire.number(wire.attributes(wire.u32(kind, value))[kind]) == value
    assert int.from_bytes(wire.attributes(wire.be32(kind, value))[kind], "big") == value


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_strings_are_read_back(value: str) -> None:
    payload = wire.attributes(wire.text(3, value))[3]
    assert payload.endswith(b"\0")
    assert wire.string(payload) == value


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_read_to_an_end(data: bytes) -> None:
    assert sum(len(message.body) for _, message in wire.unpack(data)) <= len(data)
    assert sum(len(payload) for _, payload in wire.attribute_list(data)) <= len(data)
    assert isinstance(wire.string(data), str)


@given(st.integers(0, 133), st.text("abc ", max_size=20), st.binary(max_size=40), st.booleans())
def test_the_kernels_words_are_found_behind_the_request(
    code: int, words: str, request: bytes, capped: bool
) -> None:
    """struct nlmsgerr (linux/netlink.h): the request's header, its body unless capped, the TLVs."""
    header = struct.pack("=IHHII", 16 + len(request), 20, 5, 1, 0)
    body = struct.pack("=i", -code) + header
    body += b"" if capped else request + bytes(-len(request) % 4)
    flags = wire.NLM_F_ACK_TLVS | (wire.NLM_F_CAPPED if capped else 0)
    tlvs = wire.text(wire.NLMSGERR_ATTR_MSG, words)
    assert _read_error(Message(wire.NLMSG_ERROR, flags, body + tlvs)) == (code, words)
    bare = Message(wire.NLMSG_ERROR, flags & ~wire.NLM_F_ACK_TLVS, body)
    assert _read_error(bare) == (code, "")
