"""Keys and values: read back as written, refused where anybody else wrote them otherwise."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.log import shorten
from daemon.model import Node
from daemon.sources.etcd.keys import (
    Keys,
    KeyValue,
    LengthKey,
    Malformed,
    NodeKey,
    Place,
    SubnetKey,
    encode_holder,
    encode_record,
    parse_holder,
    parse_key_value,
    parse_record,
)

KEYS = Keys("/podwire")
PLACES: dict[str, Place] = {
    "/podwire/v1/nodes/node-1.example": NodeKey("node-1.example"),
    "/podwire/v1/subnets/ipv4/10.244.3.0-24": SubnetKey(ip_network("10.244.3.0/24")),
    "/podwire/v1/subnets/ipv6/fd00:10:244:3::-64": SubnetKey(ip_network("fd00:10:244:3::/64")),
    "/podwire/v1/lengths/ipv6": LengthKey(6),
}


@pytest.mark.parametrize(("key", "place"), PLACES.items())
def test_keys_as_people_see_them(key: str, place: Place) -> None:
    assert KEYS.write(place) == key.encode()
    assert KEYS.read(key.encode()) == place


@given(
    st.one_of(
        st.builds(
            lambda net, length: SubnetKey(ip_network((net, length), strict=False)),
            st.integers(0x0A000000, 0x0AFFFFFF),
            st.integers(8, 30),
        ),
        st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True).map(NodeKey),
    )
)
def test_keys_are_read_back(place: Place) -> None:
    assert KEYS.read(KEYS.write(place)) == place
    assert KEYS.root <= KEYS.write(place) < KEYS.end


@given(st.binary(max_size=80), st.sampled_from(["nodes/", "subnets/ipv4/", "subnets/", ""]))
def test_any_key_is_one_of_ours_or_refused(tail: bytes, kind: str) -> None:
    key = KEYS.root + kind.encode() + tail
    try:
        place = KEYS.read(key)
    except ValueError:
        return
    assert KEYS.write(place) == key  # one spelling only


@pytest.mark.parametrize(
    "key",
    [
        "/podwire/v1",
        "/podwire/v2/nodes/a",
        "/podwire/v1/nodes/",
        "/podwire/v1/nodes/a/b",
        "/podwire/v1/nodes/A",
        "/podwire/v1/nodes/..",
        "/podwire/v1/subnets/ipv4/10.244.3.0/24",
        "/podwire/v1/subnets/ipv4/10.244.3.1-24",
        "/podwire/v1/subnets/ipv4/10.244.03.0-24",
        "/podwire/v1/subnets/ipv4/10.244.3.0-024",
        "/podwire/v1/subnets/ipv6/10.244.3.0-24",
        "/podwire/v1/subnets/ipv6/FD00:10:244:3::-64",
        "/podwire/v1/subnets/ipv6/fd00:10:244:3:0::-64",
        "/podwire/v1/subnets/ipv4/127.0.0.0-24",
        "/podwire/v1/subnets/ipv4/10.244.3.0-32",
        "/podwire/v1/lengths/ipv5",
        "/podwire/v1/nodes/" + "a" * 2000,
    ],
)
def test_other_spellings_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"must|is none of|too small|host bits"):
        KEYS.read(key.encode())


def test_a_record_is_read_back() -> None:
    node = Node(
        "a",
        (ip_address("192.0.2.1"), ip_address("2001:db8::1")),
        (ip_network("10.244.3.0/24"), ip_network("fd00:10:244:3::/64")),
    )
    assert parse_record("a", encode_record(node)) == node
    assert parse_holder(encode_holder("a")) == "a"


@given(
    st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(["addresses", "podCIDRs", "x"]), inner)
            ),
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_record_is_a_node_or_refused(value: bytes) -> None:
    try:
        node, why = parse_record("a", value), ""
    except ValueError as error:
        node, why = Node("a", (ip_address("192.0.2.1"),), ()), str(error)
    assert why.isprintable()
    assert node.name == "a"
    assert 1 <= len(node.addresses) <= 2


def test_a_record_nested_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="is no JSON"):
        parse_record("a", b"[" * 4000)


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists) | st.dictionaries(
    st.sampled_from(["key", "value", "lease", "create_revision"]),
    st.none() | st.integers() | st.text(),
))  # fmt: skip
def test_any_pair_is_read_or_malformed(entry: Any) -> None:
    try:
        pair = parse_key_value(entry)
    except Malformed:
        return
    assert isinstance(pair, KeyValue)


def test_a_pair_of_the_gateway() -> None:
    entry = {
        "key": base64.b64encode(b"/k").decode(),
        "create_revision": "2",
        "mod_revision": "3",
        "version": "2",
        "lease": "4611686018427387905",
    }
    assert parse_key_value(entry) == KeyValue(b"/k", b"", 2, 3, 4611686018427387905)


@given(st.one_of(st.text(), st.binary(), st.lists(st.text())))
def test_what_is_shown_is_harmless(value: object) -> None:
    shown = shorten(value)
    assert shown.isprintable()
    assert shown.isascii()
    assert len(shown) <= 83
