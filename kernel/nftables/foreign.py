"""What nftables rules of others do with a packet: evaluated, not sent.

Only a certain drop, or a certain translation, is reported. A rule whose match cannot be evaluated
(a set, a limit, most of xtables' matches) may match or not; one that may accept the packet makes
the verdict unknown. Tables of iptables-nft are such tables; those of iptables-legacy are
`kernel.legacy_filter`'s.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from kernel.model import HOST_LINK_PREFIX, IPAddress
from kernel.netlink.codec import Message, attribute_list, attributes, nfgen, string, text
from kernel.netlink.socket import Netlink
from kernel.nftables.table import ABSENT, HEADER_BYTES, SUBSYSTEM, TABLE, link_key

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
_DROP, _ACCEPT, _JUMP, _GOTO, _RETURN = 0, 1, -3, -4, -5
TRANSLATED = 256
"""Beside the kernel's verdicts: the destination is another one from here on."""
_NAT_DESTINATION = 1  # NFT_NAT_DNAT
TRANSLATING = frozenset({"DNAT", "REDIRECT"})
"""Targets of iptables that translate the destination."""
DECIDING = frozenset({"NFQUEUE", "TPROXY", "SYNPROXY"})
"""Targets of iptables that end the packet's way through the chain, as another program decides."""
_PROTOCOL, _IIF, _OIF, _IIFNAME, _OIFNAME, _NFPROTO, _L4PROTO = 1, 4, 5, 6, 7, 15, 16
_HARMLESS = frozenset({"counter", "log", "notrack", "objref", "comment", "immediate"})
# linux/netfilter/nf_conntrack_common.h: bits of the state of a packet that begins a connection, and
# of one that is not tracked. The bit of the latter is another one in xt_conntrack.h.
_CT_STATE, _STATE_NEW, _STATE_UNTRACKED, _XT_CONNTRACK_UNTRACKED = 0, 1 << 3, 1 << 6, 1 << 8
_XT_CONNTRACK_STATE, _XT_CONNTRACK_ALIAS = 1, 1 << 13  # match_flags; the latter of `-m state`
_LINK, _NETWORK, _TRANSPORT = 0, 1, 2
_ETHERTYPE = 12, 2  # its offset and length in a frame
# What is known of a header, from byte to byte: version and length, fragment, protocol, addresses;
# in IPv6 the last two; of TCP and UDP the port that the packet goes to.
_KNOWN = {
    (_NETWORK, 4): ((0, 1), (6, 8), (9, 10), (12, 20)),
    (_NETWORK, 6): ((6, 7), (8, 40)),
    (_TRANSPORT, 4): ((2, 4),),
    (_TRANSPORT, 6): ((2, 4),),
}
# linux/netfilter/nf_tables.h, NFTA_FIB_F_DADDR and NFT_FIB_RESULT_ADDRTYPE; RTN_LOCAL.
_TYPE_OF_DESTINATION, _LOCAL_TYPE = (2, 3), struct.pack("=I", 2)
# linux/netfilter/xt_addrtype.h: types of source and destination, flags; XT_ADDRTYPE_LOCAL.
_ADDRTYPE, _TYPE_LOCAL = struct.Struct("=HHI"), 1 << 2
_PORTS = struct.Struct("=4H4B")  # the ports of struct xt_tcp, and of the shorter struct xt_udp
_INVERTED_PORT, _INVERTED_FLAGS, _SYN = 0x02, 0x04, 0x02
_MATCH_INFO = 3  # linux/netfilter/nf_tables_compat.h
_DEPTH_MAX = 16  # NFT_JUMP_STACK_SIZE

_Match = Literal["yes", "no", "maybe"]
_Attributes = dict[int, bytes]


@dataclass(frozen=True, slots=True)
class Flow:
    """The first packet of a connection. Empty link names are unknown. protocol: 6 or 17.

    is_local: whether it is known to go to an address of the node's own. is_untracked: whether it is
    kept out of connection tracking, as VXLAN between nodes is.
    """

    source: IPAddress
    to: IPAddress
    protocol: int
    port: int
    iif: str = ""
    oif: str = ""
    is_local: bool = False
    is_untracked: bool = False

    def header(self, base: int, offset: int, length: int) -> bytes | None:
        """Bytes of its IP header or of that of TCP or UDP; None for what is not known here."""
        known = _KNOWN.get((base, self.to.version), ())
        if not any(first <= offset and offset + length <= end for first, end in known):
            return None
        if base == _TRANSPORT:
            header = struct.pack("!2xH", self.port)
        elif self.to.version == 4:
            header = struct.pack("!B8xB2x", 0x45, self.protocol)
        else:
            header = struct.pack("!6xBx", self.protocol)
        return (header + self.source.packed + self.to.packed)[offset : offset + length]

    def meta(self, key: int) -> bytes | None:
        """What the kernel knows of it beside its bytes; None for what is not known here."""
        is_v4 = self.to.version == 4
        names = {_IIFNAME: self.iif, _OIFNAME: self.oif}
        if names.get(key):
            return link_key(names[key])
        if link := {_IIF: self.iif, _OIF: self.oif}.get(key):
            return struct.pack("=I", _index(link))
        values = {
            _PROTOCOL: b"\x08\x00" if is_v4 else b"\x86\xdd",
            _NFPROTO: bytes([2 if is_v4 else 10]),
            _L4PROTO: bytes([self.protocol]),
        }
        return values.get(key)


def _index(link: str) -> int:
    """Its index, of the calling thread's namespace; 0, which no rule has, where there is none.

    A link that is gone gets another one when it is made anew: no rule by index is about that.
    """
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


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

    def find_translation(self, flow: Flow, priority: int) -> str:
        """What certainly gives the packet another destination; empty where nothing does.

        priority: of the chain that would do so otherwise. One of the same priority comes before it
        where it was made later (net/netfilter/core.c, nf_hook_entries_grow).
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
            if isinstance(outcome, tuple) and outcome[1] == TRANSLATED:
                return outcome[0]
        return ""

    def _run(self, chain: _Chain, flow: Flow, depth: int) -> _Outcome:
        for rule in self._rules_of(chain):
            match, verdict, target = _evaluate(rule, flow)
            if match == "no" or verdict is None:
                continue
            outcome = self._follow(chain, rule, verdict, target, flow, depth)
            if match == "maybe":
                may_end = isinstance(outcome, tuple) and outcome[1] == TRANSLATED
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


def without_oif(flow: Flow) -> Flow:
    """The packet before it is routed."""
    return replace(flow, oif="")


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


def _evaluate(rule: Message, flow: Flow) -> tuple[_Match, int | None, str]:
    """Whether a rule matches, its verdict (None: it has none), and the chain that it leads to."""
    match: _Match = "yes"
    registers: dict[int, bytes | None] = {}
    for name, data in _expressions(rule):
        if name == "immediate" and (verdict := _verdict(data)):
            return match, *verdict
        if name == "reject" or (name == "target" and string(data[1]) == "REJECT"):
            return match, _DROP, ""
        if _translates(name, data):
            return match, TRANSLATED, ""
        if name == "target" and string(data[1]) in DECIDING:
            return "maybe", _ACCEPT, ""
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


def _translates(name: str, data: _Attributes) -> bool:
    if name == "nat":
        return int.from_bytes(data[1]) == _NAT_DESTINATION
    return name == "redir" or (name == "target" and string(data[1]) in TRANSLATING)


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
    if name in ("meta", "payload", "ct", "fib") and 1 in data:
        # Of what is not tracked the state alone is known; a rule that asks for more does not match
        # (net/netfilter/nft_ct.c, nft_ct_get_eval).
        if name == "ct" and flow.is_untracked and int.from_bytes(data[2]) != _CT_STATE:
            return "no"
        registers[_place(data[1])] = _load(name, data, flow)
        return "yes"
    if name == "bitwise":
        value = registers.get(_place(data[1]))
        registers[_place(data[2])] = _mask(value, data)
        return "yes"
    if name == "cmp":
        return _compare(registers.get(_place(data[1])), data)
    if name == "match":
        return match_xtables(string(data[1]), data.get(_MATCH_INFO, b""), flow)
    return "yes" if name in _HARMLESS else "maybe"


def _place(register: bytes) -> int:
    """Where a register begins, in words of 32 bits: NFT_REG_1 to 4 are four words each."""
    number = int.from_bytes(register)
    return (number - 1) * 4 if number <= 4 else number - 8


def _load(name: str, data: _Attributes, flow: Flow) -> bytes | None:
    if name == "meta":
        return flow.meta(int.from_bytes(data[2]))
    if name == "fib":
        asked = int.from_bytes(data[3]), int.from_bytes(data[2])
        return _LOCAL_TYPE if flow.is_local and asked == _TYPE_OF_DESTINATION else None
    if name == "ct":
        return struct.pack("=I", _state(flow)) if int.from_bytes(data[2]) == _CT_STATE else None
    base, offset, length = (int.from_bytes(data[n]) for n in (2, 3, 4))
    if (base, offset, length) == (_LINK, *_ETHERTYPE):
        return flow.meta(_PROTOCOL)
    return flow.header(base, offset, length)


def _state(flow: Flow, untracked: int = _STATE_UNTRACKED) -> int:
    """The bit of its state in connection tracking. untracked: that of a packet that is not."""
    return untracked if flow.is_untracked else _STATE_NEW


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


def match_xtables(name: str, info: bytes, flow: Flow) -> _Match:
    """A match of iptables in either flavour (linux/netfilter/xt_conntrack.h, xt_state.h)."""
    if name == "comment":
        return "yes"
    if name in ("tcp", "udp") and len(info) >= _PORTS.size:
        return _match_port(name, info, flow)
    if name == "addrtype" and len(info) >= _ADDRTYPE.size and flow.is_local:
        return "yes" if _ADDRTYPE.unpack_from(info) == (0, _TYPE_LOCAL, 0) else "maybe"
    if name == "conntrack" and len(info) >= 152:
        return _match_conntrack(info, flow)
    if name == "state" and len(info) >= 4:
        return "yes" if struct.unpack_from("=I", info)[0] & _state(flow) else "no"
    return "maybe"


def _match_conntrack(info: bytes, flow: Flow) -> _Match:
    """xt_conntrack; of what is not tracked it compares the state alone (conntrack_mt)."""
    flags, inverted, states = struct.unpack_from("=HHH", info, 146)
    if not flags & _XT_CONNTRACK_STATE:
        return "no" if flow.is_untracked else "maybe"
    fits = bool(states & _state(flow, _XT_CONNTRACK_UNTRACKED))
    if fits == bool(inverted & _XT_CONNTRACK_STATE):
        return "no"
    others = flags & ~(_XT_CONNTRACK_STATE | _XT_CONNTRACK_ALIAS)
    return "maybe" if others and not flow.is_untracked else "yes"


def _match_port(name: str, info: bytes, flow: Flow) -> _Match:
    """xt_tcp and xt_udp (linux/netfilter/xt_tcpudp.h)."""
    first_source, last_source, first, last, option, mask, compared, inverted = _PORTS.unpack_from(
        info
    )
    if name == "udp":
        option, mask, compared, inverted = 0, 0, 0, option
    if (first <= flow.port <= last) == bool(inverted & _INVERTED_PORT):
        return "no"
    # The packet that opens a connection has SYN alone.
    if (_SYN & mask == compared) == bool(inverted & _INVERTED_FLAGS):
        return "no"
    return "yes" if (first_source, last_source) == (0, 0xFFFF) and not option else "maybe"
