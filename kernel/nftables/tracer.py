"""Traces packets through the rules of a network namespace, with a table that nobody else can keep.

The table is owned by the socket that made it: the kernel removes it with the socket, however the
process ends (net/netfilter/nf_tables_api.c, nft_rcv_nl_event; Linux 5.12). Each hook has a chain
of it before and after all others, so that it is seen between which two a packet ends, whatever
ends it: rules of iptables-legacy send no trace.
"""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.netlink.codec import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    attributes,
    be32,
    nested,
    string,
    text,
    unpack,
)
from kernel.netlink.socket import NETLINK_NETFILTER, Netlink
from kernel.nftables.table import HEADER_BYTES, SUBSYSTEM, commit, header
from kernel.programs import find_program, run_program

TRACER = "podwire_trace"
"""How the tables' names begin; the process ID follows."""
# linux/netfilter/nf_tables.h
_NEWTABLE, _NEWCHAIN, _NEWRULE = (SUBSYSTEM | n for n in (0, 3, 6))
_TRACE = SUBSYSTEM | 17
_GROUP = 9  # NFNLGRP_NFTRACE
_TABLE_NAME, _TABLE_FLAGS, _OWNER = 1, 2, 2
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY = 1, 2
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT, _EXPRESSION_NAME, _EXPRESSION_DATA = 1, 1, 2
_REGISTER = 8  # NFT_REG32_00
_META_SREG, _META_KEY, _META_DREG = 3, 2, 1
_NFTRACE, _L4PROTO, _NFPROTO = 12, 16, 15
_NETWORK, _TRANSPORT = 1, 2
_T_TABLE, _T_CHAIN, _T_HANDLE, _T_TYPE, _T_VERDICT, _T_ID = 1, 2, 3, 4, 5, 6
_T_NETWORK, _T_TRANSPORT, _T_POLICY = 8, 9, 16
_KINDS = {1: "policy", 2: "return", 3: "rule"}
_VERDICTS = {0: "drop", 1: "accept", 2: "stolen", 3: "queue", -1: "continue", -2: "break",
             -3: "jump", -4: "goto", -5: "return"}  # fmt: skip
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_FAR = 1_000_000
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20
_VXLAN_INNER = 8 + 8 + 14  # UDP, VXLAN and Ethernet headers before the inner packet
# What nft's parser takes for a name, and nothing else (nftables src/scanner.l, string).
_NAME = re.compile(r"[A-Za-z_.][A-Za-z0-9_./-]*")


class Bytes(NamedTuple):
    """Bytes of a packet that must be so. base: `network` or `transport` header; offset from it."""

    base: str
    offset: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Match:
    """Packets to trace. protocol: of IP."""

    version: int
    protocol: int
    bytes: tuple[Bytes, ...]


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One step of a packet. kind: rule, return or policy; verdict: what came of it.

    number: of the packet. source, to, transport: of its headers as they were at the base chain; the
    first step in each base chain alone has them.
    """

    family: str
    table: str
    chain: str
    handle: int
    kind: str
    verdict: str
    number: int = 0
    source: IPAddress | None = None
    to: IPAddress | None = None
    transport: bytes = b""

    @property
    def is_own(self) -> bool:
        """Whether it is one of the tracer's chains."""
        return self.table.startswith(TRACER)


@dataclass
class Tracer(AbstractContextManager["Tracer"]):
    """Traces in the calling thread's namespace. lost: events that came too fast to be read."""

    name: str
    matches: Sequence[Match]
    lost: bool = False
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Tracer:
        """Begin to trace. Raises KernelError."""
        with ExitStack() as stack:
            self._nl = stack.enter_context(Netlink(NETLINK_NETFILTER))
            self._events = stack.enter_context(_subscribe())
            commit(self._nl, list(self._messages()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def fileno(self) -> int:
        """For select(2)."""
        return self._events.fileno()

    def read(self) -> Iterator[TraceEvent]:
        """The events that wait."""
        while True:
            try:
                data = self._events.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError("read", "nft traces", error.errno or 0) from error
                self.lost = True
                continue
            for _sequence, _port, message in unpack(data):
                if message.type == _TRACE:
                    yield parse_event(message)

    def _messages(self) -> Iterator[Message]:
        body = header("inet") + text(_TABLE_NAME, self.name) + be32(_TABLE_FLAGS, _OWNER)
        yield Message(_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, body, f"add nft table {self.name}")
        for number, hook in enumerate(_HOOKS):
            for place, priority in (("first", -_FAR), ("last", _FAR)):
                yield self._chain(f"{hook}_{place}", number, priority)
        for match in self.matches:
            for hook in ("prerouting", "output"):
                yield self._rule(f"{hook}_first", match)

    def _chain(self, name: str, hook: int, priority: int) -> Message:
        signed = struct.pack("!i", priority)
        place = be32(_HOOK_NUMBER, hook) + attribute(_HOOK_PRIORITY, signed)
        body = header("inet") + text(_CHAIN_TABLE, self.name) + text(_CHAIN_NAME, name)
        body += nested(_CHAIN_HOOK, place) + be32(_CHAIN_POLICY, 1) + text(_CHAIN_TYPE, "filter")
        return Message(_NEWCHAIN, NLM_F_CREATE, body, f"add nft chain {name}")

    def _rule(self, chain: str, match: Match) -> Message:
        expressions = b"".join(attribute(_ELEMENT, e) for e in _expressions(match))
        body = header("inet") + text(_RULE_TABLE, self.name) + text(_RULE_CHAIN, chain)
        body += nested(_RULE_EXPRESSIONS, expressions)
        return Message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, body, f"add nft rule to {chain}")


def flow_match(
    version: int, protocol: int, source: IPAddress | None, offset: int, value: bytes
) -> Match:
    """Packets whose transport header has these bytes there; source: None for any."""
    at = {4: 12, 6: 8}[version]
    ends = (Bytes("network", at, source.packed),) if source else ()
    return Match(version, protocol, (*ends, Bytes("transport", offset, value)))


def overlay_match(underlay: int, port: int, inner: int, offset: int, value: bytes) -> Match:
    """VXLAN that carries packets whose transport header has these bytes there.

    underlay, inner: the versions of the outer and the inner IP, which has no options.
    """
    at = _VXLAN_INNER + {4: 20, 6: 40}[inner] + offset
    ports = Bytes("transport", 2, port.to_bytes(2, "big"))
    return Match(underlay, 17, (ports, Bytes("transport", at, value)))


def _expressions(match: Match) -> Iterator[bytes]:
    family = bytes((2 if match.version == 4 else 10,))
    for key, value in ((_NFPROTO, family), (_L4PROTO, bytes((match.protocol,)))):
        yield _expression("meta", be32(_META_KEY, key) + be32(_META_DREG, _REGISTER))
        yield _compare(value)
    for wanted in match.bytes:
        yield from _payload(wanted)
    one = nested(2, attribute(1, b"\x01"))  # NFTA_IMMEDIATE_DATA, NFTA_DATA_VALUE
    yield _expression("immediate", be32(1, _REGISTER) + one)
    yield _expression("meta", be32(_META_KEY, _NFTRACE) + be32(_META_SREG, _REGISTER))


def _payload(wanted: Bytes) -> Iterator[bytes]:
    base = _NETWORK if wanted.base == "network" else _TRANSPORT
    place = be32(2, base) + be32(3, wanted.offset) + be32(4, len(wanted.value))
    yield _expression("payload", be32(1, _REGISTER) + place)
    yield _compare(wanted.value)


def _compare(value: bytes) -> bytes:
    return _expression("cmp", be32(1, _REGISTER) + be32(2, 0) + nested(3, attribute(1, value)))


def _expression(name: str, data: bytes) -> bytes:
    return text(_EXPRESSION_NAME, name) + nested(_EXPRESSION_DATA, data)


def _subscribe() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        made = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        made.bind((0, 1 << (_GROUP - 1)))
    except OSError as error:
        raise KernelError("subscribe to", "nft traces", error.errno or 0) from error
    return made


def parse_event(message: Message) -> TraceEvent:
    """One NFT_MSG_TRACE; what it lacks is empty."""
    found = attributes(message.body, HEADER_BYTES)
    family = _FAMILIES.get(message.body[0] if message.body else 0, "?")
    verdict = attributes(found.get(_T_VERDICT, b"")).get(1, b"")
    code = struct.unpack("!i", verdict)[0] if len(verdict) == 4 else 0
    if _T_VERDICT not in found:
        code = int.from_bytes(found.get(_T_POLICY, b"\1"))
    source, to = _ends(found.get(_T_NETWORK, b""))
    return TraceEvent(
        family,
        string(found.get(_T_TABLE, b"")),
        string(found.get(_T_CHAIN, b"")),
        int.from_bytes(found.get(_T_HANDLE, b"")),
        _KINDS.get(int.from_bytes(found.get(_T_TYPE, b"")), "?"),
        _VERDICTS.get(code, "?"),
        int.from_bytes(found.get(_T_ID, b"")),
        source,
        to,
        found.get(_T_TRANSPORT, b""),
    )


def _ends(packet: bytes) -> tuple[IPAddress | None, IPAddress | None]:
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return ip_address(packet[12:16]), ip_address(packet[16:20])
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return ip_address(packet[8:24]), ip_address(packet[24:40])
    return None, None


def read_rule_text(event: TraceEvent) -> str:
    """The rule as nft lists it; empty without the program nft, where the rule is gone, or where
    nft could not read the names: it joins its arguments to commands, and the kernel takes any name.
    """
    program = find_program("nft")
    named = _NAME.fullmatch(event.table) and _NAME.fullmatch(event.chain)
    if program is None or not event.handle or not named:
        return ""
    argv = [program, "-n", "-a", "list", "chain", event.family, event.table, event.chain]
    try:
        listed = run_program(argv, ("list", f"nft chain {event.chain}"))
    except KernelError:
        return ""
    ending = f"# handle {event.handle}"
    line = next((line for line in listed.splitlines() if line.endswith(ending)), "")
    return line.removesuffix(ending).strip()
