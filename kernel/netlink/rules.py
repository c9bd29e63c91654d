"""Policy routing rules: messages to nouns (linux/fib_rules.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

from kernel.model import IPNetwork, Rule
from kernel.netlink.codec import FAMILY, Message, attributes, number, number_in, string

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 6, 10
_FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME = 14, 15, 16, 17
# Selectors that are named without their value: FRA_TUN_ID, FRA_UID_RANGE, ...
_OTHER = {12: "tun_id", 19: "l3mdev", 20: "uidrange", 22: "ipproto", 23: "sport", 24: "dport"}
_ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
_FIB_RULE_INVERT = 2
_ANY_MARK, _NO_SUPPRESSION = 0xFFFFFFFF, 0xFFFFFFFF

_HEAD = struct.Struct("=BBBBBBBBI")  # struct fib_rule_hdr
_VERSION = {family: version for version, family in FAMILY.items()}


def list_rules(version: int) -> Message:
    """Ask for all rules of one address family, 4 or 6, in the kernel's order (a dump)."""
    return Message(RTM_GETRULE, 0, _HEAD.pack(FAMILY[version], *[0] * 8), "list rules")


def parse_rule(message: Message) -> Rule | None:
    """The rule of an RTM_NEWRULE or RTM_DELRULE; None for one of another family."""
    family, to_length, from_length, tos, table, _, _, action, flags = _HEAD.unpack_from(
        message.body
    )
    if family not in _VERSION:
        return None
    found = attributes(message.body, _HEAD.size)
    return Rule(
        version=_VERSION[family],
        priority=number_in(found, _FRA_PRIORITY),
        action=_ACTIONS.get(action, f"action {action}"),
        table=number_in(found, _FRA_TABLE) or table,
        src=_prefix(found.get(_FRA_SRC), from_length),
        dst=_prefix(found.get(_FRA_DST), to_length),
        iif=string(found.get(_FRA_IIFNAME, b"")),
        inverted=bool(flags & _FIB_RULE_INVERT),
        more=" ".join(_others(found, tos)),
    )


def _others(found: Mapping[int, bytes], tos: int) -> Iterator[str]:
    if tos:
        yield f"tos {tos:#x}"
    mark, mask = number_in(found, _FRA_FWMARK), found.get(_FRA_FWMASK)
    if mark or (mask and number(mask)):
        among = f"/{number(mask):#x}" if mask and number(mask) != _ANY_MARK else ""
        yield f"fwmark {mark:#x}{among}"
    if _FRA_OIFNAME in found:
        yield f"oif {string(found[_FRA_OIFNAME])}"
    yield from (name for kind, name in _OTHER.items() if any(found.get(kind, b"")))
    length = found.get(_FRA_SUPPRESS_PREFIXLEN)
    if length and number(length) != _NO_SUPPRESSION:
        yield f"suppress_prefixlength {number(length)}"


def _prefix(raw: bytes | None, length: int) -> IPNetwork | None:
    return ip_network((ip_address(raw), length), strict=False) if raw else None
