"""Look-ups in sets of other programs' tables: the kernel is asked for the one element.

It finds the element of a value as it does for a packet (`ops->get` beside `ops->lookup` of
net/netfilter/nft_set_*.c): intervals, wildcards and concatenations are its affair, and the size of
a set costs nothing. Sets that packets fill, and those whose elements expire, are not evaluated:
what they have changes without an event. A set with a name may list each pod, so what it has not of
one that stands for others is not known.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from kernel.netlink.codec import (
    Message,
    attribute,
    attribute_list,
    attributes,
    be32,
    nested,
    nfgen,
    string,
    text,
)
from kernel.netlink.socket import Answer, Netlink
from kernel.nftables.flow import Flow, Match
from kernel.nftables.registers import Registers
from kernel.nftables.table import ABSENT, HEADER_BYTES, SUBSYSTEM

# linux/netfilter/nf_tables.h
_GETSET, _GETSETELEM = SUBSYSTEM | 10, SUBSYSTEM | 13
_SET_TABLE, _SET_NAME, _SET_FLAGS, _SET_KEY_LENGTH = 1, 2, 3, 5
_ANONYMOUS, _TIMEOUT, _DYNAMIC = 0x01, 0x10, 0x20  # NFT_SET_ANONYMOUS, _TIMEOUT, _EVAL
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_KEY, _DATA, _FLAGS, _EXPRESSION, _EXPRESSIONS = 1, 2, 3, 7, 11
_VALUE, _LIST_ELEMENT, _EXPRESSION_NAME = 1, 1, 1
_CATCHALL = 2
_HARMLESS = frozenset({"counter", "last"})
_NO_CATCHALL = frozenset({errno.ENOENT, errno.EINVAL})  # the latter before Linux 5.13


class SetName(NamedTuple):
    """A set of a table. family: NFPROTO_*."""

    family: int
    table: str
    name: str

    def __str__(self) -> str:
        return f"set {self.name} of nft table {self.table}"


class Found(NamedTuple):
    """Whether a set has a value. data: what a map leads it to (attributes NFTA_DATA_*).

    is_listed: whether by an element of its own, or an interval. has_default: whether the set has an
    element for all other values, `*`.
    """

    match: Match
    data: bytes = b""
    is_listed: bool = False
    has_default: bool = False


_UNKNOWN = Found("maybe")


class ForeignSets:
    """Sets of other programs; what the kernel has answered once is not asked again."""

    def __init__(self, nl: Netlink) -> None:
        self._nl = nl
        self._kinds: dict[SetName, tuple[int, bool]] = {}
        self._found: dict[tuple[SetName, bytes], Found] = {}

    def find(self, a_set: SetName, registers: Registers, register: bytes, flow: Flow) -> Found:
        """What a set has of the value that begins in a register."""
        if a_set not in self._kinds:
            self._kinds[a_set] = self._read_kind(a_set)
        length, is_named = self._kinds[a_set]
        key = registers.read(register, length) if length else None
        if key is None:
            return _UNKNOWN
        if (a_set, key) not in self._found:
            self._found[a_set, key] = self._ask(a_set, key)
        found = self._found[a_set, key]
        is_of_others = is_named and not found.is_listed and flow.is_example_in(key)
        return _UNKNOWN if is_of_others else found

    def _read_kind(self, a_set: SetName) -> tuple[int, bool]:
        """The bytes of a key, and whether it has a name; 0 where it is gone or not to evaluate."""
        body = nfgen(a_set.family) + text(_SET_TABLE, a_set.table) + text(_SET_NAME, a_set.name)
        [answer] = self._nl.run([Message(_GETSET, 0, body, f"look up {a_set}")], tolerate=ABSENT)
        if not answer.objects:
            return 0, True
        found = attributes(answer.objects[0].body, HEADER_BYTES)
        flags = int.from_bytes(found.get(_SET_FLAGS, b""))
        length = 0 if flags & (_TIMEOUT | _DYNAMIC) else int.from_bytes(found[_SET_KEY_LENGTH])
        return length, not flags & _ANONYMOUS

    def _ask(self, a_set: SetName, key: bytes) -> Found:
        wanted = nested(_KEY, attribute(_VALUE, key)), be32(_FLAGS, _CATCHALL)
        exact, default = self._nl.exchange([_request(a_set, each) for each in wanted])
        if exact.errno not in (0, errno.ENOENT) or default.errno not in (0, *_NO_CATCHALL):
            return _UNKNOWN
        answer = default if exact.errno else exact
        found = Found("no") if answer.errno else _parse(answer)
        return found._replace(is_listed=not exact.errno, has_default=not default.errno)


def _request(a_set: SetName, wanted: bytes) -> Message:
    place = text(_LIST_TABLE, a_set.table) + text(_LIST_SET, a_set.name)
    listed = nested(_LIST_ELEMENTS, nested(_LIST_ELEMENT, wanted))
    return Message(_GETSETELEM, 0, nfgen(a_set.family) + place + listed, f"read {a_set}")


def _parse(answer: Answer) -> Found:
    """The element of an answer; one with a limit, a quota or the like may match or not."""
    bodies = (attributes(message.body, HEADER_BYTES) for message in answer.objects)
    lists = (attribute_list(body.get(_LIST_ELEMENTS, b"")) for body in bodies)
    item = next((attributes(payload) for each in lists for _kind, payload in each), None)
    if item is None:
        return _UNKNOWN
    several = (payload for _kind, payload in attribute_list(item.get(_EXPRESSIONS, b"")))
    expressions = [item[_EXPRESSION]] if _EXPRESSION in item else [*several]
    names = {string(attributes(each)[_EXPRESSION_NAME]) for each in expressions}
    return Found("yes" if names <= _HARMLESS else "maybe", item.get(_DATA, b""))
