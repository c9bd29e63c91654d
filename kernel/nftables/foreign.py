"""What nftables rules of others do with a packet: evaluated, not sent.

Only a certain drop, or a certain translation, is reported. A rule whose match cannot be evaluated
(a limit, a set that packets fill, most of xtables' matches) may match or not; one that may accept
the packet makes the verdict unknown. Tables of iptables-nft are such tables; those of
iptables-legacy are `kernel.legacy_filter`'s.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from kernel.model import HOST_LINK_PREFIX
from kernel.netlink.codec import Message, attribute_list, attributes, nfgen, string, text
from kernel.netlink.socket import Netlink
from kernel.nftables.flow import Flow, Match, is_of_service, without_oif
from kernel.nftables.foreign_sets import ForeignSets, Found, SetName
from kernel.nftables.registers import Registers, compare, mask, swap
from kernel.nftables.table import ABSENT, HEADER_BYTES, SUBSYSTEM, TABLE
from kernel.nftables.xtables import DECIDING, TRANSLATING, match_xtables

# linux/netfilter.h, linux/netfilter/nf_tables.h
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4
_GETCHAIN, _GETRULE = SUBSYSTEM | 4, SUBSYSTEM | 7
_INET, _IPV4, _NETDEV, _BRIDGE, _IPV6 = 1, 2, 5, 7, 10
_FAMILIES = {_INET: "inet", _IPV4: "ip", _NETDEV: "netdev", _BRIDGE: "bridge", _IPV6: "ip6"}
_OF_VERSION = {4: (_INET, _IPV4), 6: (_INET, _IPV6)}
_INGRESS, _EGRESS = 0, 1  # of family netdev (linux/netfilter.h)
_HOOK_DEVICE, _HOOK_DEVICES, _DEVICE_PREFIX = 3, 4, 2
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_NAME, _DATA, _VALUE, _VERDICT = 1, 2, 1, 2
_DROP, _ACCEPT, _CONTINUE, _JUMP, _GOTO, _RETURN = 0, 1, -1, -3, -4, -5
# NFTA_LOOKUP_*, and NFTA_OBJREF_SET_* of an object that a map names.
_LOOKUP_SET, _LOOKUP_SOURCE, _LOOKUP_TO, _LOOKUP_FLAGS = 1, 2, 3, 5
_OBJECT_SOURCE, _OBJECT_MAP = 3, 4
_INVERTED, _TO_VERDICT = 1, 0  # NFT_LOOKUP_F_INV, NFT_REG_VERDICT
TRANSLATED, SERVED = 256, 257
"""Beside the kernel's verdicts: the destination is another one from here on; it is of a Service of
Kubernetes."""
_NAT_DESTINATION = 1  # NFT_NAT_DNAT
_HARMLESS = frozenset({"counter", "log", "notrack", "objref", "comment", "immediate"})
_CT_STATE, _CT_STATUS = 0, 2
# linux/netfilter/nf_tables.h, NFTA_FIB_F_DADDR and NFT_FIB_RESULT_ADDRTYPE; RTN_LOCAL.
_TYPE_OF_DESTINATION, _LOCAL_TYPE = (2, 3), struct.pack("=I", 2)
_MATCH_INFO = 3  # linux/netfilter/nf_tables_compat.h
_DEPTH_MAX = 16  # NFT_JUMP_STACK_SIZE

_Attributes = dict[int, bytes]


class _Chain(NamedTuple):
    """policy: drop of a base chain. hook: its number; None for a chain that others jump to.

    kind: of a base chain ("filter", "nat"). priority: among those of its hook, the lowest first.
    devices: of family netdev; the names of links, or with * at the end their beginning.
    """

    family: int
    table: str
    name: str
    hook: int | None
    is_drop: bool
    kind: str = ""
    priority: int = 0
    devices: tuple[str, ...] = ()

    def __str__(self) -> str:
        at = f" on {', '.join(self.devices)}" if self.devices else ""
        return f"chain {self.name} of table {_FAMILIES[self.family]} {self.table}{at}"

    def is_at(self, link: str) -> bool:
        """Whether it is of family netdev and sees what passes a link; one of a pod is any pod's."""
        return bool(link) and any(_is_same(link, device) for device in self.devices)


_Key = tuple[int, str, str]
_Outcome = Literal["accept", "continue", "unknown"] | tuple[str, int]
"""A tuple has the text of the rule that drops or translates, and which it does."""


class ForeignRules:
    """The rules of all tables but podwire's, read as they are asked for."""

    def __init__(self, nl: Netlink) -> None:
        """Raises KernelError."""
        self._nl = nl
        message = Message(_GETCHAIN, 0, nfgen(), "list nft chains")
        chains = (_parse_chain(m) for m in nl.dump(message) if m.body[0] in _FAMILIES)
        self._chains = {c[:3]: c for c in chains if c.table != TABLE}
        self._rules: dict[_Key, list[Message]] = {}
        self._sets = ForeignSets(nl)

    def find_drop(self, flow: Flow, *hooks: int) -> str:
        """What certainly drops the packet on these hooks, or at the links that it passes.

        Empty where nothing does.
        """
        for chain in self._chains.values():
            is_ip = chain.hook in hooks and chain.family in _OF_VERSION[flow.to.version]
            if is_ip or self._passes_link(chain, flow):
                # Where a packet goes is not decided yet when it comes in.
                seen = flow if chain.hook != PREROUTING else without_oif(flow)
                if where := self._drop_of(chain, seen):
                    return where
        return ""

    def find_bridge_drop(self, flow: Flow, *hooks: int) -> str:
        """What certainly drops the frame on these hooks of a bridge; empty where nothing does."""
        chains = (c for c in self._chains.values() if c.family == _BRIDGE and c.hook in hooks)
        return next((where for chain in chains if (where := self._drop_of(chain, flow))), "")

    def _passes_link(self, chain: _Chain, flow: Flow) -> bool:
        if chain.family != _NETDEV:
            return False
        return chain.is_at({_INGRESS: flow.iif, _EGRESS: flow.oif}.get(chain.hook or 0, ""))

    def _drop_of(self, chain: _Chain, flow: Flow) -> str:
        outcome = self._run(chain, flow, 0)
        if outcome == "continue" and chain.is_drop:
            return f"the policy of {chain}"
        return outcome[0] if isinstance(outcome, tuple) and outcome[1] == _DROP else ""

    def find_translation(self, flow: Flow, priority: int, *, services: bool = True) -> str:
        """What certainly gives the packet another destination; empty where nothing does.

        priority: of the chain that would do so otherwise. One of the same priority comes before it
        where it was made later (net/netfilter/core.c, nf_hook_entries_grow). services: whether
        Services of Kubernetes count.
        """
        chains = [
            chain
            for chain in self._chains.values()
            if (chain.hook, chain.kind) == (PREROUTING, "nat")
            and chain.priority <= priority
            and chain.family in _OF_VERSION[flow.to.version]
        ]
        for chain in sorted(chains, key=lambda chain: chain.priority):
            outcome = self._run(chain, flow, 0)
            if isinstance(outcome, tuple) and outcome[1] in (TRANSLATED, SERVED):
                return outcome[0] if services or outcome[1] == TRANSLATED else ""
        return ""

    def _run(self, chain: _Chain, flow: Flow, depth: int) -> _Outcome:
        for rule in self._rules_of(chain):
            match, verdict, target = _evaluate(rule, flow, self._sets)
            if match == "no" or verdict is None:
                continue
            outcome = self._follow(chain, rule, verdict, target, flow, depth)
            if match == "maybe":
                may_end = isinstance(outcome, tuple) and outcome[1] != _DROP
                if may_end or outcome in ("accept", "unknown") or verdict == _RETURN:
                    return "unknown"
            elif outcome != "continue" or verdict in (_GOTO, _RETURN):
                return outcome
        return "continue"

    def _follow(
        self, chain: _Chain, rule: Message, verdict: int, target: str, flow: Flow, depth: int
    ) -> _Outcome:
        if verdict == _ACCEPT:
            return "accept"
        if verdict in (_DROP, TRANSLATED):
            if verdict == TRANSLATED and is_of_service(chain.table, chain.name):
                verdict = SERVED
            handle = int.from_bytes(attributes(rule.body, HEADER_BYTES)[_RULE_HANDLE])
            return f"rule {handle} of {chain}", verdict
        if verdict == _RETURN:
            return "continue"
        to = self._chains.get((chain.family, chain.table, target))
        if verdict not in (_JUMP, _GOTO) or to is None or depth == _DEPTH_MAX:
            return "unknown"
        return self._run(to, flow, depth + 1)

    def _rules_of(self, chain: _Chain) -> list[Message]:
        key = chain[:3]
        if key not in self._rules:
            body = nfgen(chain.family) + text(_RULE_TABLE, chain.table)
            body += text(_RULE_CHAIN, chain.name)
            self._rules[key] = self._nl.dump(Message(_GETRULE, 0, body, f"list rules of {chain}"))
        return self._rules[key]


def has_chain(nl: Netlink, family: int, table: str, name: str) -> bool:
    """Whether a table of this family (NFPROTO_*) has a chain of that name. Raises KernelError."""
    body = nfgen(family) + text(_CHAIN_TABLE, table) + text(_CHAIN_NAME, name)
    message = Message(_GETCHAIN, 0, body, f"look up nft chain {name}")
    return bool(nl.run([message], tolerate=ABSENT)[0].objects)


def _parse_chain(message: Message) -> _Chain:
    found = attributes(message.body, HEADER_BYTES)
    hook = attributes(found[_CHAIN_HOOK]) if _CHAIN_HOOK in found else None
    is_drop = int.from_bytes(found.get(_CHAIN_POLICY, b"\1")) == _DROP
    number = int.from_bytes(hook[1]) if hook else None
    table, name = string(found[_CHAIN_TABLE]), string(found[_CHAIN_NAME])
    priority = int.from_bytes(hook[2], signed=True) if hook else 0
    kind = string(found.get(_CHAIN_TYPE, b""))
    devices = tuple(_devices(hook)) if hook and message.body[0] == _NETDEV else ()
    return _Chain(message.body[0], table, name, number, is_drop, kind, priority, devices)


def _devices(hook: _Attributes) -> Iterator[str]:
    listed = list(attribute_list(hook.get(_HOOK_DEVICES, b"")))
    for kind, name in listed or [(0, hook.get(_HOOK_DEVICE, b""))]:
        yield string(name) + "*" * (kind == _DEVICE_PREFIX)


def _is_same(link: str, device: str) -> bool:
    if device.endswith("*"):
        return link.startswith(device[:-1])
    prefix = HOST_LINK_PREFIX
    return link == device or (link.startswith(prefix) and device.startswith(prefix))


def _evaluate(rule: Message, flow: Flow, sets: ForeignSets) -> tuple[Match, int | None, str]:
    """Whether a rule matches, its verdict (None: it has none), and the chain that it leads to."""
    match: Match = "yes"
    registers = Registers()
    for name, data in _expressions(rule):
        if name == "immediate" and (verdict := _verdict(data[2])):
            return match, *verdict
        if name == "reject" or (name == "target" and string(data[1]) == "REJECT"):
            return match, _DROP, ""
        if _translates(name, data):
            return match, TRANSLATED, ""
        if name == "target" and string(data[1]) in DECIDING:
            return "maybe", _ACCEPT, ""
        if name == "lookup" or (name == "objref" and _OBJECT_MAP in data):
            fits, verdict = _look_up(name, data, rule, registers, flow, sets)
            if verdict:
                return ("maybe" if "maybe" in (match, fits) else "yes"), *verdict
        elif name in ("masq", "nat", "redir", "tproxy", "queue", "target"):
            if name != "target" and data.get(3) is not None:  # a translation
                return "maybe", _ACCEPT, ""
            fits = "yes" if name == "target" else "maybe"
        else:
            fits = _match(name, data, registers, flow)
        if fits == "no":
            return "no", None, ""
        match = "maybe" if "maybe" in (match, fits) else "yes"
    return match, None, ""


def _look_up(
    name: str, data: _Attributes, rule: Message, registers: Registers, flow: Flow, sets: ForeignSets
) -> tuple[Match, tuple[int, str] | None]:
    """Whether a set has what was loaded; of a verdict map the verdict that it leads to."""
    keys = (_OBJECT_MAP, _OBJECT_SOURCE) if name == "objref" else (_LOOKUP_SET, _LOOKUP_SOURCE)
    named, source = (data[key] for key in keys)
    table = string(attributes(rule.body, HEADER_BYTES)[_RULE_TABLE])
    found = sets.find(SetName(rule.body[0], table, string(named)), registers, source, flow)
    if name == "objref" or _LOOKUP_TO not in data:
        is_inverted = name == "lookup" and int.from_bytes(data.get(_LOOKUP_FLAGS, b"")) == _INVERTED
        return (_invert(found) if is_inverted else found.match), None
    if int.from_bytes(data[_LOOKUP_TO]) != _TO_VERDICT:
        value = attributes(found.data).get(_VALUE) if found.match == "yes" else None
        registers.store(data[_LOOKUP_TO], value)
        return found.match, None
    if found.match == "no":
        return "no", None
    verdict = _verdict(found.data) if found.match == "yes" else None
    if verdict is None:
        return "maybe", (_ACCEPT, "")
    return "yes", None if verdict[0] == _CONTINUE else verdict


def _invert(found: Found) -> Match:
    """What an inverted look-up finds.

    With an element for all other values it is not certain: there were kernels that matched by it
    even where the set has the value (net/netfilter/nft_lookup.c, nft_lookup_eval).
    """
    if found.match == "maybe" or found.has_default:
        return "maybe"
    return "no" if found.match == "yes" else "yes"


def _translates(name: str, data: _Attributes) -> bool:
    if name == "nat":
        return int.from_bytes(data[1]) == _NAT_DESTINATION
    return name == "redir" or (name == "target" and string(data[1]) in TRANSLATING)


def jump_target(rule: Message) -> str:
    """The chain that a rule leads to; empty where it leads to none."""
    verdicts = [_verdict(data[2]) for name, data in _expressions(rule) if name == "immediate"]
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


def _verdict(data: bytes) -> tuple[int, str] | None:
    found = attributes(data).get(_VERDICT)
    if found is None:
        return None
    verdict = attributes(found)
    return int.from_bytes(verdict[1], signed=True), string(verdict.get(2, b""))


def _match(name: str, data: _Attributes, registers: Registers, flow: Flow) -> Match:
    if name in ("meta", "payload", "ct", "fib") and 1 in data:
        # Of what is not tracked the state alone is known; a rule that asks for more does not match
        # (net/netfilter/nft_ct.c, nft_ct_get_eval).
        if name == "ct" and flow.is_untracked and int.from_bytes(data[2]) != _CT_STATE:
            return "no"
        registers.store(data[1], _load(name, data, flow))
        return "yes"
    if name == "bitwise":
        registers.store(data[2], mask(registers, data))
        return "yes"
    if name == "byteorder":
        registers.store(data[2], swap(registers, data))
        return "yes"
    if name == "cmp":
        return compare(registers, data)
    if name == "match":
        return match_xtables(string(data[1]), data.get(_MATCH_INFO, b""), flow)
    if name in _HARMLESS:
        return "yes"
    registers.forget()
    return "maybe"


def _load(name: str, data: _Attributes, flow: Flow) -> Sequence[int | None] | None:
    if name == "meta":
        return flow.meta(int.from_bytes(data[2]))
    if name == "fib":
        asked = int.from_bytes(data[3]), int.from_bytes(data[2])
        return _LOCAL_TYPE if flow.is_local and asked == _TYPE_OF_DESTINATION else None
    if name == "ct":
        # The first packet of a connection that nothing translates has no status that rules name
        # (IPS_DST_NAT and the like, linux/netfilter/nf_conntrack_common.h).
        values = {_CT_STATE: flow.state(), _CT_STATUS: 0}
        known = values.get(int.from_bytes(data[2]))
        return None if known is None else struct.pack("=I", known)
    return flow.header(*(int.from_bytes(data[n]) for n in (2, 3, 4)))
