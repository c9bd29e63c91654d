"""What rules of iptables-legacy do with a packet: read with getsockopt(2) and evaluated, not sent.

Nothing of them is visible through nftables, and a change of them is announced to nobody. No program
is needed to read them. The bytes are those of linux/netfilter_ipv4/ip_tables.h, ip6_tables.h and
x_tables.h; a match that is not evaluated may match or not (see `kernel.nftables.foreign`).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from kernel.iptables import has_legacy_table
from kernel.nftables.flow import Flow, is_of_service, without_oif
from kernel.nftables.foreign import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING
from kernel.nftables.table import IFNAMSIZ, link_key
from kernel.nftables.xtables import DECIDING, TRANSLATING, match_xtables

_TABLES = {
    "raw": (PREROUTING, OUTPUT),
    "mangle": (PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING),
    "nat": (PREROUTING,),
    "filter": (INPUT, FORWARD, OUTPUT),
}
"""The tables with their hooks, in the order of their priorities."""
_NAT_PRIORITY = -100  # NF_IP_PRI_NAT_DST
CHAINS = {
    PREROUTING: "PREROUTING", INPUT: "INPUT", FORWARD: "FORWARD", OUTPUT: "OUTPUT",
    POSTROUTING: "POSTROUTING",
}  # fmt: skip
_LEVELS = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_PROGRAMS = {4: "iptables-legacy", 6: "ip6tables-legacy"}
_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES; IP6T_ are the same
_NAME = struct.Struct("=32s")
_INFO = struct.Struct("=32sI5I5III")
_AT_ENTRIES = 40  # struct ipt_get_entries: the entries are aligned to eight bytes
_SIZE_MAX = 16 << 20
_CHAIN_NAME = 30  # XT_FUNCTION_MAXNAMELEN
_VIA_IN, _VIA_OUT, _SOURCE, _DESTINATION, _PROTOCOL = 0x01, 0x02, 0x08, 0x10, 0x40
_FRAGMENT, _NOT_FRAGMENT = 0x01, 0x20  # IPT_F_FRAG, IPT_INV_FRAG; of IPv4 alone
_HEAD = struct.Struct("=H29sB")  # struct xt_entry_match, xt_entry_target
_DROP, _ACCEPT, _RETURN = -1, -2, -5  # a verdict is -NF_... - 1
_DEPTH_MAX = 32
_STEPS_MAX = 100_000
_MatchOf = Literal["yes", "no", "maybe"]
_Does = Literal["drop", "translate", "serve", ""]
"""What a rule does certainly; "serve" leads to a Service of Kubernetes."""
_Verdict = Literal["accept", "continue", "unknown"] | tuple[str, _Does]
"""A tuple has the text of a rule, and what it does."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where an entry has what: behind the addresses with their masks, and the links' names."""

    address: int  # bytes
    protocol: int
    goto: int
    flags: int
    inverted: int
    offsets: int
    entry: int


_LAYOUTS = {
    4: _Layout(4, 80, 0x02, 82, 83, 88, 112),
    6: _Layout(16, 128, 0x04, 131, 132, 140, 168),
}


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """A table as the kernel has it. entries: its rules, one after the other.

    starts, policies: by hook, where its chain begins, and where its policy is, in bytes.
    """

    version: int
    name: str
    starts: Mapping[int, int] = field(default_factory=dict)
    policies: Mapping[int, int] = field(default_factory=dict)
    entries: bytes = b""

    def find(self, flow: Flow, hook: int) -> tuple[str, _Does]:
        """What certainly drops or translates the packet on the hook, and which it does.

        Empty where nothing does.
        """
        if hook not in self.starts or flow.to.version != self.version:
            return "", ""
        walk = _Walk(self, flow)
        outcome = walk.run(self.starts[hook], 0)
        if outcome == "continue":  # what returns from a base chain gets its policy
            outcome = walk.run(self.policies[hook], 0)
        return outcome if isinstance(outcome, tuple) else ("", "")

    def describe(self, offset: int) -> str:
        """The rule there, for people."""
        for hook, place in self.policies.items():
            if place == offset:
                return f"the policy of chain {CHAINS[hook]} of {self}"
        chain, number = self.locate(offset)
        return f"rule {number} of chain {chain} of {self}"

    def locate(self, offset: int) -> tuple[str, int]:
        """The chain of the rule there, and its number in it."""
        chain, number = "", 0
        heads = {place: CHAINS[hook] for hook, place in self.starts.items()}
        for at in self._offsets():
            if head := heads.get(at) or self._head(at):
                chain, number = head, 0
            number += at in heads or not self._head(at)
            if at == offset:
                break
        return chain, number

    def _offsets(self) -> Iterator[int]:
        at, layout = 0, _LAYOUTS[self.version]
        while at + layout.entry <= len(self.entries):
            yield at
            step = struct.unpack_from("=H", self.entries, at + layout.offsets + 2)[0]
            at += step or len(self.entries)

    def target(self, at: int) -> tuple[str, int]:
        """The name of a rule's target, empty for a plain verdict, and where its data is."""
        place = at + struct.unpack_from("=H", self.entries, at + _LAYOUTS[self.version].offsets)[0]
        return _string(_HEAD.unpack_from(self.entries, place)[1]), place + _HEAD.size

    def _head(self, at: int) -> str:
        """The name of the chain that begins there, if one of an administrator's does."""
        name, data = self.target(at)
        return _string(self.entries[data : data + _CHAIN_NAME]) if name == "ERROR" else ""

    def __str__(self) -> str:
        return f"table {self.name} of {_PROGRAMS[self.version]}"


def _string(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")


class LegacyRules:
    """The rules of the tables of both families; none where the node uses none."""

    def __init__(self) -> None:
        """Read them, of the calling thread's namespace."""
        # Asked for one that is not there, the kernel would make it.
        self.tables = [
            table
            for version in (4, 6)
            for name in _TABLES
            if has_legacy_table(version, name) and (table := _read(version, name))
        ]

    def find_drop(self, flow: Flow, *hooks: int) -> str:
        """What certainly drops the packet on these hooks; empty where nothing does."""
        for table in self.tables:
            for hook in hooks:
                # Where a packet goes is not decided yet when it comes in.
                seen = flow if hook != PREROUTING else without_oif(flow)
                where, does = table.find(seen, hook)
                if does == "drop":
                    return where
        return ""

    def find_translation(self, flow: Flow, priority: int, *, services: bool = True) -> str:
        """What certainly gives the packet another destination; empty where nothing does.

        priority: of the chain that would do so otherwise. services: whether Services of Kubernetes
        count.
        """
        tables = [t for t in self.tables if t.name == "nat" and priority >= _NAT_PRIORITY]
        found = (t.find(flow, PREROUTING) for t in tables)
        where, does = next((each for each in found if each[0]), ("", ""))
        return where if services or does == "translate" else ""


def _read(version: int, name: str) -> LegacyTable | None:
    """None where the table has just gone, or this process may not read it."""
    try:
        with socket.socket(_FAMILIES[version], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
            raw = _get(opened, version, _GET_INFO, _NAME.pack(name.encode()), _INFO.size)
            _name, _hooks, *rest = _INFO.unpack(raw)
            starts, policies, size = rest[:5], rest[5:10], rest[11]
            request = struct.pack("=32sI4x", name.encode(), min(size, _SIZE_MAX))
            found = _get(opened, version, _GET_ENTRIES, request, _AT_ENTRIES + size)
    except OSError:
        return None
    valid = [hook for hook in _TABLES[name] if _hooks & 1 << hook]
    return LegacyTable(
        version, name, {h: starts[h] for h in valid}, {h: policies[h] for h in valid},
        found[_AT_ENTRIES:],
    )  # fmt: skip


def _get(opened: socket.socket, version: int, option: int, request: bytes, size: int) -> bytes:
    """getsockopt(2) with a request in its buffer, which Python's own has no way to give."""
    import ctypes

    buffer = ctypes.create_string_buffer(request, size)
    length = ctypes.c_uint32(size)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(opened.fileno(), _LEVELS[version], option, buffer, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), "getsockopt")
    return buffer.raw[: length.value]


class _Walk:
    """One packet on its way through a table."""

    def __init__(self, table: LegacyTable, flow: Flow) -> None:
        self._table, self._flow = table, flow
        self._layout, self._left = _LAYOUTS[table.version], _STEPS_MAX

    def run(self, at: int, depth: int) -> _Verdict:
        """Its verdict from the rule there on."""
        entries, layout = self._table.entries, self._layout
        while 0 <= at <= len(entries) - layout.entry and self._left:
            self._left -= 1
            target, step = struct.unpack_from("=HH", entries, at + layout.offsets)
            match = self._match(at, target)
            outcome = "continue" if match == "no" else self._follow(at, step, depth)
            translates = isinstance(outcome, tuple) and outcome[1] != "drop"
            if match == "maybe" and (translates or outcome in ("accept", "unknown", "return")):
                return "unknown"
            if match == "yes" and outcome != "continue":
                return "continue" if outcome == "return" else outcome
            at += step or len(entries)
        return "unknown"

    def _follow(self, at: int, step: int, depth: int) -> _Verdict | Literal["return"]:
        entries = self._table.entries
        name, data = self._table.target(at)
        if name == "REJECT":
            return self._table.describe(at), "drop"
        if name in TRANSLATING:
            is_served = is_of_service(self._table.name, self._table.locate(at)[0])
            return self._table.describe(at), "serve" if is_served else "translate"
        if name == "ERROR" or name in DECIDING:
            return "unknown"
        if name:
            return "continue"
        verdict = struct.unpack_from("=i", entries, data)[0]
        if verdict < 0:
            known = {
                _ACCEPT: "accept",
                _RETURN: "return",
                _DROP: (self._table.describe(at), "drop"),
            }
            return known.get(verdict, "unknown")  # type: ignore[return-value]
        if verdict == at + step:
            return "continue"
        if depth == _DEPTH_MAX:
            return "unknown"
        outcome = self.run(verdict, depth + 1)
        is_goto = entries[at + self._layout.flags] & self._layout.goto
        return "return" if outcome == "continue" and is_goto else outcome

    def _match(self, at: int, target: int) -> _MatchOf:
        entries, results = self._table.entries, [*self._match_head(at)]
        place = at + self._layout.entry
        while place < at + target and "no" not in results:
            size, raw, _revision = _HEAD.unpack_from(entries, place)
            name = _string(raw)
            info = entries[place + _HEAD.size : place + size]
            results.append(match_xtables(name, info, self._flow))
            place += max(size, _HEAD.size)
        return "no" if "no" in results else "maybe" if "maybe" in results else "yes"

    def _match_head(self, at: int) -> Iterator[_MatchOf]:
        entries, layout, flow = self._table.entries, self._layout, self._flow
        size, inverted = layout.address, entries[at + layout.inverted]
        addresses = [entries[at + size * n : at + size * (n + 1)] for n in range(4)]
        for packed, wanted, mask, flag in (
            (flow.source.packed, addresses[0], addresses[2], _SOURCE),
            (flow.to.packed, addresses[1], addresses[3], _DESTINATION),
        ):
            fits = all(p & m == w for p, m, w in zip(packed, mask, wanted, strict=True))
            yield "yes" if fits != bool(inverted & flag) else "no"
        names = at + 4 * size
        for name, number, flag in ((flow.iif, 0, _VIA_IN), (flow.oif, 1, _VIA_OUT)):
            wanted = entries[names + IFNAMSIZ * number :][:IFNAMSIZ]
            mask = entries[names + IFNAMSIZ * (2 + number) :][:IFNAMSIZ]
            if not any(mask):
                continue
            found = link_key(name)
            fits = all(f & m == w & m for f, m, w in zip(found, mask, wanted, strict=True))
            yield "maybe" if not name else "yes" if fits != bool(inverted & flag) else "no"
        if self._table.version == 4 and entries[at + layout.flags] & _FRAGMENT:
            # The second and later fragments of a packet, or with ! all else.
            yield "yes" if inverted & _NOT_FRAGMENT else "no"
        protocol = struct.unpack_from("=H", entries, at + layout.protocol)[0]
        if protocol:
            fits = protocol == flow.protocol
            yield "yes" if fits != bool(inverted & _PROTOCOL) else "no"
