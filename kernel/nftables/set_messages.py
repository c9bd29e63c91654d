"""Elements of podwire's nft sets: read, added and removed through netlink."""

from __future__ import annotations

import errno
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from kernel.errors import KernelError
from kernel.model import Element
from kernel.netlink.codec import (
    NLM_F_CREATE,
    Message,
    attribute,
    attribute_list,
    attributes,
    be32,
    nested,
    text,
)
from kernel.netlink.socket import Netlink
from kernel.nftables.generation import commit_elements
from kernel.nftables.table import ABSENT, HEADER_BYTES, SUBSYSTEM, TABLE, Set, commit, header

# linux/netfilter/nf_tables.h
_NEWSETELEM, _GETSETELEM, _DELSETELEM = SUBSYSTEM | 12, SUBSYSTEM | 13, SUBSYSTEM | 14
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_DATA, _ELEMENT_FLAGS, _ELEMENT_KEY_END = 1, 2, 3, 10
_DATA_VALUE, _LIST_ELEMENT = 1, 1
_INTERVAL_END = 1
PER_TRANSACTION = 256
"""Elements in one transaction: it is one datagram, and the socket's buffer is finite."""

_Item = dict[int, bytes]
"""The attributes of one element."""


def read_elements(nl: Netlink, a_set: Set, table: str = TABLE) -> frozenset[Element] | None:
    """All elements of a set; None where table or set does not exist."""
    body = header(a_set.family) + text(_LIST_TABLE, table) + text(_LIST_SET, a_set.name)
    try:
        answers = nl.dump(Message(_GETSETELEM, 0, body, f"list nft set {a_set.name}"))
    except KernelError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return parse_elements(a_set, answers)


def read_sets(nl: Netlink, sets: Iterable[Set]) -> frozenset[Element]:
    """The elements of several sets; one that is absent has none."""
    return frozenset(e for a_set in sets for e in read_elements(nl, a_set) or ())


def parse_elements(a_set: Set, answers: Iterable[Message]) -> frozenset[Element]:
    """The elements that a dump of the set lists."""
    items = [item for answer in answers for item in _items(answer)]
    return frozenset((_parse_tree if a_set.is_tree else _parse_flat)(a_set, items))


def _items(answer: Message) -> Iterable[_Item]:
    elements = attributes(answer.body, HEADER_BYTES).get(_LIST_ELEMENTS, b"")
    return (attributes(payload) for _kind, payload in attribute_list(elements))


def _value(item: _Item, kind: int) -> bytes | None:
    return attributes(item[kind]).get(_DATA_VALUE) if kind in item else None


def _parse_flat(a_set: Set, items: Iterable[_Item]) -> Iterable[Element]:
    parts = (_ELEMENT_KEY, _ELEMENT_KEY_END, _ELEMENT_DATA)
    found = ([_value(item, part) for part in parts] for item in items)
    return (a_set.element(key, end, data) for key, end, data in found if key is not None)


def _parse_tree(a_set: Set, items: Iterable[_Item]) -> Iterable[Element]:
    starts: list[bytes] = []
    ends: list[bytes] = []
    for item in items:
        key = _value(item, _ELEMENT_KEY)
        flags = struct.unpack("!I", item.get(_ELEMENT_FLAGS, bytes(4)))[0]
        if key is not None:
            (ends if flags & _INTERVAL_END else starts).append(key)
    ends.sort()
    return (a_set.element(start, _last_before_end(start, ends)) for start in starts)


def _last_before_end(start: bytes, ends: Sequence[bytes]) -> bytes:
    after = next((end for end in ends if end > start), None)
    if after is None:
        return b"\xff" * len(start)
    return (int.from_bytes(after) - 1).to_bytes(len(start))


def change_elements(nl: Netlink, add: Collection[Element], remove: Collection[Element]) -> None:
    """Remove and add elements, some hundred in each transaction; adding a present one is no change.

    Raises KernelError with errno ENOENT where the tables (or an element to remove) are missing.
    """
    messages = [element_message(e, remove=True) for e in ordered(remove)]
    messages += [element_message(e) for e in ordered(add)]
    intervals = any(e.key_end is not None for e in (*add, *remove))
    for start in range(0, len(messages), PER_TRANSACTION):
        commit_elements(nl, messages[start : start + PER_TRANSACTION], intervals=intervals)


def read_mapped(nl: Netlink, elements: Iterable[Element]) -> frozenset[Element]:
    """What the kernel's maps have for the keys of these elements; it need not be their data."""
    found: set[Element] = set()
    for element in elements:
        message = Message(_GETSETELEM, 0, _listed(element, data=False), f"read {element.set_name}")
        for answer in nl.run([message], tolerate=ABSENT)[0].objects:
            data = (_value(item, _ELEMENT_DATA) for item in _items(answer))
            found |= {replace(element, data=each) for each in data}
    return frozenset(found)


def remove_elements(nl: Netlink, elements: Collection[Element]) -> None:
    """Remove elements; those that are gone already, and keys led elsewhere, are no error."""
    mapped = [e for e in elements if e.data is not None]
    if mapped:
        # The kernel removes by key alone, whoever has the port by now.
        others = set(mapped) - read_mapped(nl, mapped)
        elements = [e for e in elements if e not in others]
    try:
        # Each transaction waits until the one before it was cleaned up, a grace period later.
        change_elements(nl, (), elements)
        return
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    for element in ordered(elements):
        commit(nl, [element_message(element, remove=True)], ABSENT)


def ordered(elements: Collection[Element]) -> list[Element]:
    """Elements in the order of their messages.

    A port's MAC is allowed before the port is checked, and checked no more before its MAC goes
    (names sort that way), all in one transaction.
    """
    return sorted(elements, key=lambda e: (e.family, e.set_name, e.key))


def element_message(element: Element, *, remove: bool = False) -> Message:
    """Add or remove one element."""
    body = _listed(element, data=not remove)
    if remove:
        return Message(_DELSETELEM, 0, body, f"remove from nft set {element.set_name}")
    return Message(_NEWSETELEM, NLM_F_CREATE, body, f"add to nft set {element.set_name}")


def _listed(element: Element, *, data: bool) -> bytes:
    key = nested(_ELEMENT_KEY, attribute(_DATA_VALUE, element.key))
    parts = [key]
    if element.key_end is not None and element.tree:
        parts += _tree_end(element.key_end)
    elif element.key_end is not None:
        parts = [key + nested(_ELEMENT_KEY_END, attribute(_DATA_VALUE, element.key_end))]
    elif element.data is not None and data:
        parts = [key + nested(_ELEMENT_DATA, attribute(_DATA_VALUE, element.data))]
    listed = nested(_LIST_ELEMENTS, *(nested(_LIST_ELEMENT, part) for part in parts))
    place = text(_LIST_TABLE, TABLE) + text(_LIST_SET, element.set_name)
    return header(element.family) + place + listed


def _tree_end(key_end: bytes) -> list[bytes]:
    """The element that ends an interval: the first key after it, if there is one."""
    after = int.from_bytes(key_end) + 1
    if after >> (8 * len(key_end)):
        return []
    value = attribute(_DATA_VALUE, after.to_bytes(len(key_end)))
    return [nested(_ELEMENT_KEY, value) + be32(_ELEMENT_FLAGS, _INTERVAL_END)]
