"""Set elements as netlink messages: what is encoded is what is read back."""

import errno
import random
from dataclasses import replace
from ipaddress import collapse_addresses, ip_network
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.errors import KernelError
from kernel.model import Element, IPNetwork
from kernel.netlink.codec import Message, attribute_list, attributes, nested, string
from kernel.netlink.socket import Netlink
from kernel.nftables.masquerade import (
    CLUSTER,
    CLUSTER_SETS,
    INTERNAL,
    MASQUERADE,
    Masqueraded,
    cluster_elements,
    masquerade_elements,
)
from kernel.nftables.ruleset import PARTS, set_of
from kernel.nftables.set_messages import (
    _last_before_end,
    change_elements,
    element_message,
    ordered,
    parse_elements,
    read_elements,
    read_sets,
    remove_elements,
)
from kernel.nftables.spoof_check import spoof_check_elements
from kernel.nftables.table import Set, load, remove_tables
from tests.unit.kernel.strategies import crowded_networks, ip_networks, macs, names, versions

_LIST_ELEMENTS = 3
ENDS_OF_THE_WORLD = ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "255.255.255.255/32", "::/0")


def tree_element(prefix: IPNetwork) -> Element:
    [element] = [
        e
        for e in masquerade_elements([Masqueraded((prefix,))])
        if e.set_name.startswith("masquerade")
    ]
    return element


def listed(elements: list[Element], order: random.Random) -> list[Message]:
    """The elements as a dump lists them; the kernel's order is its own."""
    payloads = [
        payload
        for element in elements
        for _kind, payload in attribute_list(
            attributes(element_message(element).body, 4)[_LIST_ELEMENTS]
        )
    ]
    order.shuffle(payloads)
    parts = [payloads[:2], payloads[2:]]
    return [
        Message(0, 0, bytes(4) + nested(_LIST_ELEMENTS, *(nested(1, p) for p in part)))
        for part in parts
    ]


@settings(max_examples=200)
@given(
    versions.flatmap(lambda v: st.lists(crowded_networks(v, 6), max_size=6)),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_intervals_of_a_tree(prefixes: list[IPNetwork], join: bool, order: random.Random) -> None:
    """Starts and ends are members of their own; neighbours share a boundary."""
    apart = [
        p
        for p in set(prefixes)
        if not any(p != q and p.subnet_of(q) for q in prefixes)  # type: ignore[arg-type]
    ]
    disjoint = list(collapse_addresses(apart)) if join else apart  # type: ignore[type-var]
    elements = [tree_element(prefix) for prefix in disjoint]
    a_set = set_of(elements[0]) if elements else MASQUERADE[4]
    assert parse_elements(a_set, listed(elements, order)) == set(elements)


@given(st.sampled_from(ENDS_OF_THE_WORLD) | ip_networks.map(str), st.randoms())
def test_any_single_interval_of_a_tree(text: str, order: random.Random) -> None:
    element = tree_element(ip_network(text))
    assert parse_elements(set_of(element), listed([element], order)) == {element}


@given(
    versions.flatmap(lambda v: st.lists(st.lists(crowded_networks(v), max_size=3), max_size=3)),
    st.randoms(use_true_random=False),
)
def test_elements_of_concatenated_sets(groups: list[list[IPNetwork]], order: random.Random) -> None:
    networks = [Masqueraded(tuple(prefixes)) for prefixes in groups]
    elements = {e for e in masquerade_elements(networks) if e.set_name.startswith("internal")}
    for a_set in INTERNAL.values():
        mine = [element for element in elements if element.set_name == a_set.name]
        assert parse_elements(a_set, listed(mine, order)) == set(mine)


@given(names, macs, st.randoms(use_true_random=False))
def test_elements_for_a_checked_port(port: str, mac: str, order: random.Random) -> None:
    """Fields of a concatenation are padded to 32 bits, interface names to 16 bytes."""
    allowed, checked = spoof_check_elements(port, mac)
    assert (allowed.set_name, checked.set_name) == ("allowed_macs", "checked_ports")
    assert allowed.key == checked.key + bytes.fromhex(mac.replace(":", "")) + b"\0\0"
    assert string(checked.key) == port
    assert len(checked.key) == 16
    for element in (allowed, checked):
        assert parse_elements(set_of(element), listed([element], order)) == {element}


@given(names, macs)
def test_a_port_is_allowed_before_it_is_checked_and_after(port: str, mac: str) -> None:
    elements = spoof_check_elements(port, mac)
    for given_order in (elements, elements[::-1]):
        found = [e.set_name for e in ordered(given_order)]
        assert found == ["allowed_macs", "checked_ports"]


@given(names, st.sampled_from(("inet", "bridge")), st.binary(min_size=4, max_size=4))
def test_a_message_names_its_table_and_set(name: str, family: str, key: bytes) -> None:
    for remove, kind, flags in ((False, 12, 0x400), (True, 14, 0)):
        message = element_message(Element(family, name, key), remove=remove)
        assert (message.type, message.flags) == (10 << 8 | kind, flags)
        assert message.body[0] == {"inet": 1, "bridge": 7}[family]
        found = attributes(message.body, 4)
        assert (string(found[1]), string(found[2])) == ("podwire", name)
        verb = "remove from" if remove else "add to"
        assert str(message) == f"{verb} nft set {name}"


@given(st.binary(max_size=120))
def test_garbage_in_a_dump_is_no_element(data: bytes) -> None:
    a_set = Set("inet", "hairpin4", ("ifname", "ipv4_addr", "ipv4_addr"))
    found = parse_elements(a_set, [Message(0, 0, data)])
    assert all(element.key in data for element in found)


@given(versions.flatmap(lambda v: st.lists(crowded_networks(v), min_size=2, max_size=4)))
def test_the_end_of_an_interval_is_the_next_boundary(prefixes: list[IPNetwork]) -> None:
    ends = sorted({p.broadcast_address.packed for p in prefixes})
    for start, after in pairwise(ends):
        found = int.from_bytes(_last_before_end(start, ends))
        assert found == int.from_bytes(after) - 1
    assert _last_before_end(ends[-1], ends) == b"\xff" * len(ends[-1])


def element(name: str, key: bytes) -> Element:
    return Element("inet", name, key)


def test_elements_are_sent_by_table_set_and_key() -> None:
    sent = [Element("bridge", "b", b"z"), element("a", b"2"), element("b", b"1")]
    assert ordered([sent[2], sent[0], sent[1]]) == sent
    assert ordered([element("a", b"2"), element("a", b"1")])[0].key == b"1"


@pytest.mark.parametrize(
    ("tree", "last", "parts"),
    [(True, 9, 2), (True, 255, 1), (False, 9, 1)],
    ids=["tree", "tree without end", "concatenation"],
)
def test_how_an_interval_is_written(tree: bool, last: int, parts: int) -> None:
    end = bytes((255, 255, 255, last))
    message = element_message(Element("inet", "x", bytes(4), end, tree))
    items = list(attribute_list(attributes(message.body, 4)[_LIST_ELEMENTS]))
    assert len(items) == parts
    fields = [attributes(payload) for _kind, payload in items]
    assert [sorted(f) for f in fields] == {
        (True, 9): [[1], [1, 3]], (True, 255): [[1]], (False, 9): [[1, 10]],
    }[tree, last]  # fmt: skip
    if parts == 2:
        assert attributes(fields[1][1])[1] == bytes((255, 255, 255, 10))
        assert fields[1][3] == (1).to_bytes(4)


PREFIXES = [ip_network((10 << 24 | number << 8, 25)) for number in range(700)]
MANY = sorted(
    cluster_elements((p.network_address, p.broadcast_address) for p in PREFIXES),
    key=lambda e: e.key,
)


def read(nl: Netlink) -> frozenset[Element]:
    return read_sets(nl, CLUSTER_SETS)


def test_sets_are_absent_or_hold_what_was_added(nl: Netlink) -> None:
    assert read_elements(nl, CLUSTER[4]) is None
    assert read(nl) == frozenset()
    with pytest.raises(KernelError) as caught:
        change_elements(nl, MANY[:1], ())
    assert caught.value.errno == errno.ENOENT
    change_elements(nl, (), ())
    load(*PARTS.values())
    assert read_elements(nl, CLUSTER[4]) == frozenset()
    change_elements(nl, MANY[:2], ())
    change_elements(nl, MANY[1:3], MANY[:1])
    assert read(nl) == set(MANY[1:3])


def test_hundreds_of_elements_take_several_transactions(nl: Netlink) -> None:
    load(*PARTS.values())
    change_elements(nl, MANY, ())
    assert read(nl) == set(MANY)
    wider = [replace(e, key_end=e.key[:3] + b"\xff") for e in MANY[:300]]
    change_elements(nl, wider, MANY[:300])
    assert read(nl) == {*wider, *MANY[300:]}
    change_elements(nl, MANY[:1], wider[:1])
    assert read(nl) == {MANY[0], *wider[1:], *MANY[300:]}


def test_removing_what_is_gone_is_no_error(nl: Netlink) -> None:
    load(*PARTS.values())
    change_elements(nl, MANY[:3], ())
    remove_elements(nl, [MANY[0], MANY[5], MANY[1]])
    assert read(nl) == {MANY[2]}
    remove_elements(nl, [MANY[2]])
    assert read(nl) == frozenset()
    remove_tables(nl)
    remove_elements(nl, [MANY[2]])
