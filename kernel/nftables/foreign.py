"""What nftables rules of others do with a packet: evaluated, not sent.

Only a certain drop is reported. A rule whose match cannot be evaluated (a set, a limit, most of
xtables' matches) may match or not; one that may accept the packet makes the verdict unknown. Tables
of iptables-nft are such tables; those of iptables-legacy cannot be read through nftables.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kernel.model import IPAddress
from kernel.netlink.codec import Message, attribute_list, attributes, string, text
from kernel.netlink.socket import Netlink
from kernel.nftables.table import ABSENT, HEADER_BYTES, IFNAMSIZ, SUBSYSTEM, TABLE

# linux/netfilter.h, linux/netfilter/nf_tables.h
PREROUTING, INPUT, FORWARD, OUTPUT = 0, 1, 2, 3
_GETCHAIN, _GETRULE = SUBSYSTEM | 4, SUBSYSTEM | 7
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_OF_VERSION = {4: (1, 2), 6: (1, 10)}
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_NAME, _DATA, _VALUE, _VERDICT = 1, 2, 1, 2
_DROP, _ACCEPT, _JUMP, _GOTO, _RETURN = 0, 1, -3, -4, -5
_PROTOCOL, _IIFNAME, _OIFNAME, _NFPROTO, _L4PROTO = 1, 6, 7, 15, 16
_HARMLESS = frozenset({"counter", "log", "notrack", "objref", "comment"})
# Bits of the state of a packet that begins a connection: NF_CT_STATE_BIT, XT_CONNTRACK_STATE_BIT.
_STATE_NEW = 1 << 3
_NETWORK, _TRANSPORT = 1, 2
_MATCH_INFO = 3  # linux/netfilter/nf_tables_compat.h
_DEPTH_MAX = 16  # NFT_JUMP_STACK_SIZE

_Match = Literal["yes", "no", "maybe"]
_Attributes = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Flow:
    """The first packet of a connection. Empty link names are unknown. protocol: 6 or 17."""

    source: IPAddress
    to: IPAddress
    protocol: int
    port: int
    iif: str = ""
    oif: str = ""

    @property
    def network_header(self) -> bytes:
        """Its IP header, as far as rules look at it."""
        ends = self.source.packed + self.to.packed
        if self.to.version == 4:
            return struct.pack("!BBHHHBBH", 0x45, 0, 60, 0, 0, 64, self.protocol, 0) + ends
        return struct.pack("!IHBB", 6 << 28, 20, self.protocol, 64) + ends

    def meta(self, key: int) -> bytes | None:
        """What the kernel knows of it beside its bytes; None for what is not known here."""
        is_v4 = self.to.version == 4
        names = {_IIFNAME: self.iif, _OIFNAME: self.oif}
        if names.get(key):
            return names[key].encode().ljust(IFNAMSIZ, b"\0")
        values = {
            _PROTOCOL: b"\x08\x00" if is_v4 else b"\x86\xdd",
            _NFPROTO: bytes([2 if is_v4 else 10]),
            _L4PROTO: bytes([self.protocol]),
        }
        return values.get(key)


class _Chain(NamedTuple):
    """policy: drop of a base chain. hook: its number; None for a chain that others jump to."""

    family: int
    table: str
    name: str
    hook: int | None
    is_drop: bool

    def __str__(self) -> str:
        return f"chain {self.name} of table {_FAMILIES[self.family]} {self.table}"


_Key = tuple[int, str, str]
_Outcome = Literal["accept", "continue", "unknown"] | tuple[str]
"""A tuple has the text of what drops."""


class ForeignRules:
    """The rules of all tables but podwire's, read as they are asked for."""

    def __init__(self, nl: Netlink) -> None:
        """Raises KernelError."""
        self._nl = nl
        message = Message(_GETCHAIN, 0, struct.pack("!BBH", 0, 0, 0), "list nft chains")
        chains = (_parse_chain(m) for m in nl.dump(message) if m.body[0] in _FAMILIES)
        self._chains = {c[:3]: c for c in chains if c.table != TABLE}
        self._rules: dict[_Key, list[Message]] = {}

    def find_drop(self, flow: Flow, *hooks: int) -> str:
        """What certainly drops the packet on these hooks; empty where nothing does."""
        for chain in self._chains.values():
            if chain.hook in hooks and chain.family in _OF_VERSION[flow.to.version]:
                # Where a packet goes is not decided yet when it comes in.
                seen = flow if chain.hook != PREROUTING else _without_oif(flow)
                outcome = self._run(chain, seen, 0)
                if outcome == "continue" and chain.is_drop:
                    return f"the policy of {chain}"
                if isinstance(outcome, tuple):
                    return outcome[0]
        return ""

    def _run(self, chain: _Chain, flow: Flow, depth: int) -> _Outcome:
        for rule in self._rules_of(chain):
            match, verdict, target = _evaluate(rule, flow)
            if match == "no" or verdict is None:
                continue
            outcome = self._follow(chain, rule, verdict, target, flow, depth)
            if match == "maybe":
                if outcome in ("accept", "unknown") or verdict == _RETURN:
                    return "unknown"
            elif outcome != "continue" or verdict in (_GOTO, _RETURN):
                return outcome
        return "continue"

    def _follow(
        self, chain: _Chain, rule: Message, verdict: int, target: str, flow: Flow, depth: int
    ) -> _Outcome:
        if verdict == _ACCEPT:
            return "accept"
        if verdict == _DROP:
            handle = int.from_bytes(attributes(rule.body, HEADER_BYTES)[_RULE_HANDLE])
            return (f"rule {handle} of {chain}",)
        if verdict == _RETURN:
            return "continue"
        to = self._chains.get((chain.family, chain.table, target))
        if verdict not in (_JUMP, _GOTO) or to is None or depth == _DEPTH_MAX:
            return "unknown"
        return self._run(to, flow, depth + 1)

    def _rules_of(self, chain: _Chain) -> list[Message]:
        key = chain[:3]
        if key not in self._rules:
            body = struct.pack("!BBH", chain.family, 0, 0)
            body += text(_RULE_TABLE, chain.table) + text(_RULE_CHAIN, chain.name)
            self._rules[key] = self._nl.dump(Message(_GETRULE, 0, body, f"list rules of {chain}"))
        return self._rules[key]


def has_chain(nl: Netlink, family: str, table: str, name: str) -> bool:
    """Whether a table of this family (ip, ip6) has a chain of that name. Raises KernelError."""
    number = next(number for number, known in _FAMILIES.items() if known == family)
    body = struct.pack("!BBH", number, 0, 0) + text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, name)
    message = Message(_GETCHAIN, 0, body, f"look up nft chain {name}")
    return bool(nl.run([message], tolerate=ABSENT)[0].objects)


def _without_oif(flow: Flow) -> Flow:
    return Flow(flow.source, flow.to, flow.protocol, flow.port, flow.iif)


def _parse_chain(message: Message) -> _Chain:
    found = attributes(message.body, HEADER_BYTES)
    hook = attributes(found[_CHAIN_HOOK]) if _CHAIN_HOOK in found else None
    is_drop = int.from_bytes(found.get(_CHAIN_POLICY, b"\1")) == _DROP
    number = int.from_bytes(hook[1]) if hook else None
    table, name = string(found[_CHAIN_TABLE]), string(found[_CHAIN_NAME])
    return _Chain(message.body[0], table, name, number, is_drop)


def _evaluate(rule: Message, flow: Flow) -> tuple[_Match, int | None, str]:
    """Whether a rule matches, its verdict (None: it has none), and the chain that it leads to."""
    match: _Match = "yes"
    registers: dict[int, bytes | None] = {}
    for name, data in _expressions(rule):
        if name == "immediate" and (verdict := _verdict(data)):
            return match, *verdict
        if name == "reject" or (name == "target" and string(data[1]) == "REJECT"):
            return match, _DROP, ""
        if name in ("lookup", "masq", "nat", "redir", "tproxy", "queue", "target"):
            if name != "target" and data.get(3) is not None:  # a verdict map, or a translation
                return "maybe", _ACCEPT, ""
            fits: _Match = "yes" if name == "target" else "maybe"
        else:
            fits = _match(name, data, registers, flow)
        if fits == "no":
            return "no", None, ""
        match = "maybe" if "maybe" in (match, fits) else "yes"
    return match, None, ""


def jump_target(rule: Message) -> str:
    """The chain that a rule leads to; empty where it leads to none."""
    verdicts = [_verdict(data) for name, data in _expressions(rule) if name == "immediate"]
    return next((v[1] for v in verdicts if v and v[0] in (_JUMP, _GOTO)), "")


def xtables_comment(rule: Message) -> str:
    """The comment of a rule of iptables-nft as far as it is a match of its own; else empty."""
    matches = (data for name, data in _expressions(rule) if name == "match")
    infos = (data.get(_MATCH_INFO, b"") for data in matches if string(data[1]) == "comment")
    return next((string(info.partition(b"\0")[0]) for info in infos), "")


def _expressions(rule: Message) -> Iterator[tuple[str, _Attributes]]:
    found = attributes(rule.body, HEADER_BYTES).get(_RULE_EXPRESSIONS, b"")
    for _kind, payload in attribute_list(found):
        expression = attributes(payload)
        yield string(expression[_NAME]), attributes(expression.get(_DATA, b""))


def _verdict(data: _Attributes) -> tuple[int, str] | None:
    found = attributes(data[2]).get(_VERDICT)
    if found is None:
        return None
    verdict = attributes(found)
    return int.from_bytes(verdict[1], signed=True), string(verdict.get(2, b""))


def _match(name: str, data: _Attributes, registers: dict[int, bytes | None], flow: Flow) -> _Match:
    if name in ("meta", "payload", "ct") and 1 in data:
        registers[_place(data[1])] = _load(name, data, flow)
        return "yes"
    if name == "bitwise":
        value = registers.get(_place(data[1]))
        registers[_place(data[2])] = _mask(value, data)
        return "yes"
    if name == "cmp":
        return _compare(registers.get(_place(data[1])), data)
    if name == "match":
        return _match_xtables(string(data[1]), data.get(_MATCH_INFO, b""))
    return "yes" if name in _HARMLESS else "maybe"


def _place(register: bytes) -> int:
    """Where a register begins, in words of 32 bits: NFT_REG_1 to 4 are four words each."""
    number = int.from_bytes(register)
    return (number - 1) * 4 if number <= 4 else number - 8


def _load(name: str, data: _Attributes, flow: Flow) -> bytes | None:
    if name == "meta":
        return flow.meta(int.from_bytes(data[2]))
    if name == "ct":
        return struct.pack("=I", _STATE_NEW) if int.from_bytes(data[2]) == 0 else None
    base, offset, length = (int.from_bytes(data[n]) for n in (2, 3, 4))
    ports = struct.pack("!HH", flow.port, flow.port)
    header = {_NETWORK: flow.network_header, _TRANSPORT: ports}.get(base, b"")
    cut = header[offset : offset + length]
    return cut if len(cut) == length else None


def _mask(value: bytes | None, data: _Attributes) -> bytes | None:
    if value is None or 4 not in data or 5 not in data:
        return None
    mask, flip = (attributes(data[n])[_VALUE] for n in (4, 5))
    return bytes(v & m ^ x for v, m, x in zip(value, mask, flip, strict=False))


def _compare(value: bytes | None, data: _Attributes) -> _Match:
    operation, wanted = int.from_bytes(data[2]), attributes(data[3])[_VALUE]
    if value is None or len(value) < len(wanted):
        return "maybe"
    found = value[: len(wanted)]
    results = (found == wanted, found != wanted, found < wanted, found <= wanted, found > wanted)
    fits = results[operation] if operation < len(results) else found >= wanted
    return "yes" if fits else "no"


def _match_xtables(name: str, info: bytes) -> _Match:
    """A match of iptables-nft (linux/netfilter/xt_conntrack.h, xt_state.h)."""
    if name == "comment":
        return "yes"
    if name == "conntrack" and len(info) >= 152:
        flags, inverted, states = struct.unpack_from("=HHH", info, 146)
        if flags != 1:  # XT_CONNTRACK_STATE alone
            return "maybe"
        return "yes" if bool(states & _STATE_NEW) != bool(inverted & 1) else "no"
    if name == "state" and len(info) >= 4:
        return "yes" if struct.unpack_from("=I", info)[0] & _STATE_NEW else "no"
    return "maybe"
