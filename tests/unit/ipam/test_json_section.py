"""Typed reading of JSON: what is taken, what is absent, and which error a wrong type is."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from ipam.errors import ConfigError
from ipam.json_section import (
    Dns,
    Section,
    parse_address,
    parse_address_with_prefix,
    parse_dns,
    parse_network,
    show,
)

READERS: dict[str, tuple[Callable[[Section], Any], list[tuple[Any, Any]], list[Any]]] = {
    "boolean": (lambda s: s.boolean("key"), [(True, True), (False, False), (None, None)], [1, "x"]),
    "string": (lambda s: s.string("key"), [("x", "x"), ("", ""), (None, None)], [1, True, []]),
    "choice": (
        lambda s: s.choice("key", ("", "a", "b")),
        [("a", "a"), ("", ""), (None, None)],
        ["c", 1],
    ),
    "text": (lambda s: s.text("key"), [("x", "x"), ("", None), (None, None)], ["a\0b", 5]),
    "texts": (lambda s: s.texts("key"), [(["a", "b"], ("a", "b")), (None, ())], ["a", [1], 5]),
    "items": (lambda s: s.items("key"), [([1, "a"], [1, "a"]), (None, [])], [{}, "a", 5]),
    "integer": (
        lambda s: s.integer("key", 2, 9),
        [(2, 2), (9, 9), (None, None)],
        [1, 10, True, 2.5, "2"],
    ),
    "seconds": (
        lambda s: s.seconds("key"),
        [(0, 0.0), (1.5, 1.5), (2**32 - 1, 2.0**32 - 1), (None, None)],
        [-1, 2**32, True, "1", float("nan")],
    ),
    "address": (
        lambda s: s.address("key"),
        [("10.0.0.1", ip_address("10.0.0.1")), ("", None), (None, None)],
        ["10.0.0.1/8", "x", 5],
    ),
    "network": (
        lambda s: s.network("key"),
        [("10.0.0.0/8", ip_network("10.0.0.0/8")), ("", None)],
        ["10.0.0.1/8", "10.0.0.0", 5],
    ),
    "section": (
        lambda s: s.section("key").values,
        [({"a": 1}, {"a": 1}), ({}, {}), (None, {})],
        [[], "a", {1: 2}],
    ),
    "sections": (
        lambda s: [each.path for each in s.sections("key")],
        [([{}, {"a": 1}], ["top.key[0]", "top.key[1]"]), (None, [])],
        [{}, [5], [None]],
    ),
}
TAKEN = [
    (name, value, read) for name, (_, pairs, _wrong) in READERS.items() for value, read in pairs
]
REFUSED = [(name, value) for name, (_, _pairs, wrong) in READERS.items() for value in wrong]


@pytest.mark.parametrize(("name", "value", "read"), TAKEN)
def test_what_is_taken(name: str, value: Any, read: Any) -> None:
    reader = READERS[name][0]
    found = reader(Section("top", {"key": value}))
    assert found == read
    assert type(found) is type(read)
    assert reader(Section("top", {"KEY": value})) == read
    assert not reader(Section("top", {}))


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^top\.key") as caught:
        READERS[name][0](Section("top", {"key": value}))
    assert caught.value.code == 7


def test_keys_match_exactly_before_they_match_in_another_case() -> None:
    section = Section("", {"Key": "other", "key": "exact", "KEY": None})
    assert section.string("key") == "exact"
    assert section.string("kEY") == "exact", "the last one in another case"
    assert section.name("key") == "key"


@pytest.mark.parametrize("value", [None, 5, "x", [], {5: 1}])
def test_what_is_no_object(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"top is .*, must be an object"):
        Section.of("top", value)


def test_values_in_messages_are_cut() -> None:
    for value in ("x" * 5000, ["y" * 70] * 50, 10**5000):
        assert len(show(value)) <= 80
    assert show("x") == "'x'"


@pytest.mark.parametrize("text", ["10.0.0.1%0", "fe80::1%eth0", "10.0.0.1/24", "", "10.0.0", "x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address(text)


def test_a_mapped_address_is_its_ipv4_address() -> None:
    assert parse_address("::ffff:10.0.0.1") == ip_address("10.0.0.1")
    assert parse_address("::10.0.0.1") == ip_address("::a00:1")


def test_an_address_with_a_prefix() -> None:
    assert parse_address_with_prefix("10.0.0.1/24") == ip_address("10.0.0.1")
    assert parse_address_with_prefix("fd00::1") == ip_address("fd00::1")


@pytest.mark.parametrize(
    "text", ["10.0.0.1/33", "10.0.0.1/255.255.255.0", "10.0.0.1/", "10.0.0.1/٤", "10.0.0.1/0024"]
)
def test_an_address_with_a_wrong_prefix(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_address_with_prefix(text)


@pytest.mark.parametrize(
    "text", ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/0.0.0.0", "::ffff:10.0.0.0/120", "fe80::%1/64"]
)
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_network(text, mask_host_bits=True)


def test_host_bits() -> None:
    assert parse_network("10.0.0.9/8", mask_host_bits=True) == ip_network("10.0.0.0/8")
    with pytest.raises(ValueError, match=r"the subnet is 10\.0\.0\.0/8"):
        parse_network("10.0.0.9/8")


def test_dns() -> None:
    values = {"nameservers": ["a"], "domain": "b", "search": ["c"], "options": ["d"]}
    assert parse_dns(Section("dns", values)) == Dns(("a",), "b", ("c",), ("d",))
    assert parse_dns(Section("dns", {})) == Dns()
