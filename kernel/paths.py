"""Where the kernel sends packets, policy rules included: it is asked, nothing is computed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kernel.model import IPAddress, IPNetwork, Rule
from kernel.netlink import links, routes, rules
from kernel.netlink.codec import Message
from kernel.netlink.socket import Answer, Netlink
from kernel.read import read_link

_PER_SEND = 128
# A route waits in a buffer of its own page (inet_rtm_getroute), an error in a quarter of one.
_ROOM = 5 * _PER_SEND
_DEFAULT_TABLES = frozenset({253, 254, 255})  # default, main, local (linux/rtnetlink.h)
# What a rule answers that lets nothing pass (net/ipv4/fib_rules.c, fib4_rule_action).
_NOWHERE = (0, None, 0)
_NO_LINK = 0x7FFFFFFF  # the index of no link
_REFUSING = {
    errno.ENETUNREACH: "unreachable",
    errno.EACCES: "prohibit",
    errno.EINVAL: "blackhole",
}


class Packet(NamedTuple):
    """A packet to look up. source: None where the kernel chooses it.

    iif: the link that it comes in by, to be forwarded; empty for one that the node itself sends.
    """

    to: IPAddress
    source: IPAddress | None = None
    iif: str = ""


@dataclass(frozen=True, slots=True)
class PacketPath:
    """The way of a packet. link: empty where it is refused, with the errno.

    rule: the policy rule that decided in place of the main table; empty where that did.
    """

    link: str = ""
    via: IPAddress | None = None
    errno: int = 0
    rule: str = ""

    def __str__(self) -> str:
        via = f"via {self.via} " if self.via else ""
        how = f"{via}dev {self.link}" if self.link else f"nowhere ({os.strerror(self.errno)})"
        return f"{how} by rule {self.rule}" if self.rule else how


def find_paths(nl: Netlink, packets: Sequence[Packet]) -> list[PacketPath]:
    """The path of each packet, as the kernel answers. Raises KernelError."""
    incoming = {name: read_link(nl, name) for name in {p.iif for p in packets if p.iif}}
    indexes = {name: link.index if link else _NO_LINK for name, link in incoming.items()}
    messages = [routes.get_route(p.to, p.source, indexes.get(p.iif, 0)) for p in packets]
    answers = _ask(nl, messages)
    hops = [routes.parse_path(a.objects[0]) if a.objects else _NOWHERE for a in answers]
    names = _names(nl, {index for index, _via, _table in hops if index})
    deciding = _Rules(nl)
    return [
        PacketPath(names.get(index, ""), via, answer.errno, deciding.name(packet, table, answer))
        for packet, answer, (index, via, table) in zip(packets, answers, hops, strict=True)
    ]


def local_addresses(nl: Netlink, addresses: Iterable[IPAddress]) -> set[IPAddress]:
    """Those of the addresses that are this node's own, by its routes. Raises KernelError."""
    asked = tuple(dict.fromkeys(addresses))
    answers = zip(asked, _ask(nl, [routes.get_route(a) for a in asked]), strict=True)
    return {a for a, answer in answers if answer.objects and routes.is_local(answer.objects[0])}


def _ask(nl: Netlink, messages: Sequence[Message]) -> list[Answer]:
    nl.make_room(_ROOM if len(messages) > 1 else 0)
    answers: list[Answer] = []
    for start in range(0, len(messages), _PER_SEND):
        answers += nl.exchange(messages[start : start + _PER_SEND])
    return answers


def read_rules(nl: Netlink, version: int) -> list[Rule]:
    """The policy rules of a family, in the kernel's order. Raises KernelError."""
    return [rule for m in nl.dump(rules.list_rules(version)) if (rule := rules.parse_rule(m))]


def _names(nl: Netlink, indexes: Iterable[int]) -> Mapping[int, str]:
    asked = [links.get_link(index=index) for index in indexes]
    answers = nl.run(asked, tolerate=links.GONE)
    found = (links.parse_link(answer.objects[0]) for answer in answers if answer.objects)
    return {link.index: link.name for link in found}


class _Rules:
    """The rules of the node, read when one decided."""

    def __init__(self, nl: Netlink) -> None:
        self._nl = nl
        self._rules: dict[int, list[Rule]] = {}
        self._refusals: dict[int, list[tuple[int, IPNetwork]]] = {}

    def name(self, packet: Packet, table: int, answer: Answer) -> str:
        """The rule that decided on a packet in place of the main table; empty where that did."""
        if table in _DEFAULT_TABLES:
            return ""
        action = _REFUSING.get(answer.errno) if answer.errno else "lookup"
        rules = [rule for rule in self._read(packet.to.version) if _may_catch(rule, packet)]
        found = [rule for rule in rules if (rule.action, rule.table) == (action, table)]
        if answer.errno and not found:
            refusing = self._refusing_tables(packet.to)
            found = [r for r in rules if r.action == "lookup" and r.table in refusing]
        # The packets that are looked up have no mark, protocol or port.
        plain = [rule for rule in found if rule.inverted or not rule.more]
        return str((plain or found)[0]) if found else ""

    def _read(self, version: int) -> list[Rule]:
        if version not in self._rules:
            self._rules[version] = read_rules(self._nl, version)
        return self._rules[version]

    def _refusing_tables(self, to: IPAddress) -> set[int]:
        """The tables, beside the usual ones, that have a route which refuses packets to there.

        The answer to a refused packet does not name the table.
        """
        if to.version not in self._refusals:
            found = map(routes.parse_refusal, self._nl.dump(routes.list_routes(to.version)))
            self._refusals[to.version] = [r for r in found if r and r[0] not in _DEFAULT_TABLES]
        return {table for table, dst in self._refusals[to.version] if to in dst}


def _may_catch(rule: Rule, packet: Packet) -> bool:
    fits = (
        _is_in(packet.to, rule.dst)
        and (packet.source is None or _is_in(packet.source, rule.src))
        and rule.iif in ("", packet.iif)
    )
    return fits or rule.inverted


def _is_in(address: IPAddress, prefix: IPNetwork | None) -> bool:
    return prefix is None or address in prefix
