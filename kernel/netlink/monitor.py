"""Netlink notifications of rtnetlink and nftables as events: one noun for each change.

An event only wakes its reader, which compares the desired state with the kernel again. Changes that
the owner made itself are recognised by the netlink port that made them, and are dropped by a socket
filter before they wake it.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Literal

from kernel.errors import KernelError
from kernel.model import Address, FdbEntry, Link, Neighbour, Route, Rule, Sysctl
from kernel.netlink import links, neighbours, routes, rules
from kernel.netlink import traffic_control as tc
from kernel.netlink.codec import Message, attributes, string, unpack
from kernel.netlink.socket import NETLINK_NETFILTER, NETLINK_ROUTE
from kernel.socket_filter import attach_filter

Kind = Literal[
    "link", "address", "route", "neighbour", "fdb", "netconf", "rule", "limit", "nft", "lost"
]

# linux/rtnetlink.h, enum rtnetlink_groups: LINK, NEIGH, TC, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE,
# IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, IPV4_NETCONF, IPV6_NETCONF.
_GROUPS = sum(1 << (group - 1) for group in (1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25))
_NFT_GROUPS = 1 << 6  # NFNLGRP_NFTABLES
_BUFFER_BYTES = 8 << 20
_RECEIVE_BYTES = 1 << 17
_AT_ONCE = 4096
_SO_RCVBUFFORCE = 33
SOL_NETLINK, LISTEN_ALL_NSID = 270, 8

_RTM_NEWNETCONF, _RTM_DELNETCONF = 80, 81
_NETCONF_INDEX, _NETCONF_ALL, _NETCONF_DEFAULT = 1, -1, -2
_NETCONF = {2: "forwarding", 3: "rp_filter"}
_LIMITS = (tc.RTM_NEWQDISC, tc.RTM_DELQDISC, tc.RTM_NEWTFILTER, tc.RTM_DELTFILTER)
_VERSION: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 6}

# linux/netfilter/nf_tables.h: message type to (what, whether it went).
_NFT = {
    0: ("table", False), 2: ("table", True), 3: ("chain", False), 5: ("chain", True),
    6: ("rule", False), 8: ("rule", True), 9: ("set", False), 11: ("set", True),
    12: ("element", False), 14: ("element", True),
}  # fmt: skip
_NFT_GENERATION, _GENERATION_PID = 15, 2
_NFT_FAMILY = {1: "inet", 2: "ip", 3: "arp", 7: "bridge", 10: "ip6"}


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A change in an nft table. what: table, chain, rule, set, element; name: the set or chain."""

    family: str
    table: str
    what: str
    name: str


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A change of a link's queueing disciplines or filters (tc(8))."""

    link: str


Noun = Link | Address | Route | Rule | Neighbour | FdbEntry | Sysctl | LimitChange | RuleChange


@dataclass(frozen=True, slots=True)
class Event:
    """One change. deleted: the object is gone, or is no longer what a peer's entry must be.

    noun: the object after the change (before it, where it is deleted); None for "lost", which
        means that events were dropped and everything must be compared.
    port: the netlink port that made it, normally the process ID of its owner; 0: the kernel.
    flags: of the message; NLM_F_REPLACE marks a route that took another one's place.
    """

    kind: Kind
    deleted: bool
    noun: Noun | None
    port: int
    flags: int = 0


class Monitor(AbstractContextManager["Monitor"]):
    """Notifications about the namespace of the thread that opens it, and reads it."""

    def __init__(self, buffer_bytes: int = _BUFFER_BYTES) -> None:
        """Subscribe. buffer_bytes: what may wait in the kernel unread. Raises KernelError."""
        self._names: dict[int, str] = {}
        self._device = 0
        self._stale: set[int] = set()
        self._route = subscribe(NETLINK_ROUTE, _GROUPS, buffer_bytes)
        self._nft: socket.socket | None = None
        try:
            self._nft = subscribe(NETLINK_NETFILTER, _NFT_GROUPS, buffer_bytes)
        except KernelError as error:  # a kernel without nftables has no rules to lose
            if error.errno != errno.EPROTONOSUPPORT:
                raise
        # One descriptor for both, which is readable when either is.
        self._poll = select.epoll()
        for source in filter(None, (self._route, self._nft)):
            self._poll.register(source.fileno(), select.EPOLLIN)

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._poll.close()
        for source in filter(None, (self._route, self._nft)):
            source.close()

    def fileno(self) -> int:
        """A descriptor that is readable when there are events."""
        return self._poll.fileno()

    def has_unread(self) -> bool:
        """Whether something happened since the last `read`; does not wait."""
        return bool(self._poll.poll(0))

    def ignore(self, port: int, device: int = 0) -> None:
        """Drop what this netlink port does, and neighbours of other links than device (its index).

        Changes of FDB entries are reported without a port (drivers/net/vxlan: vxlan_fdb_notify), so
        they come all the same.
        """
        attach_filter(self._route, _own_changes(port, device))
        if self._device not in (0, device):
            # What is still to be read of an earlier device is not about this one of its name.
            self._stale.add(self._device)
        self._device = device

    def read(self) -> list[Event]:
        """What happened since the last call; does not wait."""
        return [*self._read_route(), *self._read_nft()]

    def _read_route(self) -> Iterator[Event]:
        for data in _datagrams(self._route):
            if data is None:
                self._names.clear()
                yield Event("lost", deleted=False, noun=None, port=0)
            else:
                for _sequence, port, message in unpack(data):
                    yield from self._parse(message, port)

    def _parse(self, message: Message, port: int) -> Iterator[Event]:
        deleted = message.type % 4 == 1
        if message.type in (links.RTM_NEWLINK, links.RTM_DELLINK):
            noun: Noun | None = self._note_link(message, deleted)
            kind: Kind = "link"
        elif message.type in (links.RTM_NEWADDR, links.RTM_DELADDR):
            index, address = links.parse_address(message)
            noun, kind = replace(address, link=self._name(index)), "address"
        elif message.type in (routes.RTM_NEWROUTE, routes.RTM_DELROUTE):
            noun, kind = self._note_route(message), "route"
        elif message.type in (rules.RTM_NEWRULE, rules.RTM_DELRULE):
            noun, kind = rules.parse_rule(message), "rule"
        elif message.type in (neighbours.RTM_NEWNEIGH, neighbours.RTM_DELNEIGH):
            index, entry, permanent = neighbours.parse_entry(message)
            noun = replace(entry, link=self._name(index)) if entry else None
            kind = "fdb" if isinstance(entry, FdbEntry) else "neighbour"
            deleted = deleted or not permanent
        elif message.type in _LIMITS:
            noun, kind = LimitChange(self._name(tc.link_index(message))), "limit"
        elif message.type in (_RTM_NEWNETCONF, _RTM_DELNETCONF):
            yield from self._netconf(message, port)
            return
        else:
            return
        if noun is not None:
            yield Event(kind, deleted, noun, port, message.flags)

    def _note_link(self, message: Message, deleted: bool) -> Link:
        link = links.parse_link(message)
        if deleted:
            self._names.pop(link.index, None)
            self._stale.discard(link.index)
        else:
            self._names[link.index] = link.name
        return link

    def _note_route(self, message: Message) -> Route | None:
        names = {index: self._name(index) for index, _route in routes.parse_route(message)}
        return routes.parse_named_route(message, names)

    def _name(self, index: int) -> str:
        # A block of filters that several links share has -1 (TCM_IFINDEX_MAGIC_BLOCK).
        if index <= 0 or index in self._stale:
            return ""
        if index not in self._names:
            try:
                self._names[index] = socket.if_indextoname(index)
            except OSError:
                return ""  # gone meanwhile, as the link's own event reports
        return self._names[index]

    def _netconf(self, message: Message, port: int) -> Iterator[Event]:
        version = _VERSION.get(message.body[0])
        found = attributes(message.body, 4)  # struct netconfmsg: the family, padded
        if version is None or _NETCONF_INDEX not in found:
            return
        index = int(struct.unpack("=i", found[_NETCONF_INDEX])[0])
        special = {_NETCONF_ALL: "all", _NETCONF_DEFAULT: "default"}
        name = special[index] if index in special else self._name(index)
        for kind, key in _NETCONF.items():
            if kind in found and name:
                value = str(struct.unpack("=i", found[kind])[0])
                noun = Sysctl(f"net/ipv{version}/conf/{name}/{key}", value)
                yield Event("netconf", message.type == _RTM_DELNETCONF, noun, port)

    def _read_nft(self) -> Iterator[Event]:
        if self._nft is None:
            return
        found: list[Event] = []
        for data in _datagrams(self._nft):
            if data is None:
                found.append(Event("lost", deleted=False, noun=None, port=0))
                continue
            for _sequence, port, message in unpack(data):
                if message.type & 0xFF == _NFT_GENERATION:
                    # The last message of a transaction names the process that it came from.
                    port = _generation_pid(message) or port
                    yield from (replace(e, port=port) if e.kind == "nft" else e for e in found)
                    found.clear()
                else:
                    found += _rule_event(message, port)
        yield from found


def _generation_pid(message: Message) -> int:
    found = attributes(message.body, 4)
    return int.from_bytes(found.get(_GENERATION_PID, b""))


def _rule_event(message: Message, port: int) -> Iterator[Event]:
    known = _NFT.get(message.type & 0xFF)
    if known is None:
        return
    what, deleted = known
    found = attributes(message.body, 4)
    family = _NFT_FAMILY.get(message.body[0], "")
    # Attribute 1 is the table's name in all of them, 2 the set's or chain's but for a table's.
    name = string(found.get({"chain": 3}.get(what, 2), b"")) if what != "table" else ""
    noun = RuleChange(family, string(found.get(1, b"")), what, name)
    yield Event("nft", deleted, noun, port)


def subscribe(
    protocol: int, groups: int, buffer_bytes: int, *, of_pods: bool = False
) -> socket.socket:
    """A socket that notifications of these groups come to. Raises KernelError.

    of_pods: also those of other namespaces that have a number here (NETNSA_NSID).
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    with ExitStack() as undo:
        try:
            made = undo.enter_context(socket.socket(socket.AF_NETLINK, kind, protocol))
            if of_pods:  # needs CAP_NET_BROADCAST
                made.setsockopt(SOL_NETLINK, LISTEN_ALL_NSID, 1)
            made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
            made.bind((0, groups))
        except OSError as error:
            what = "events of pods" if of_pods else "kernel events"
            raise KernelError("subscribe to", what, error.errno or 0) from error
        undo.pop_all()
    return made


def _datagrams(source: socket.socket) -> Iterator[bytes | None]:
    """What waits on the socket; None where the kernel dropped events."""
    for _ in range(_AT_ONCE):
        try:
            yield source.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None


# Classic BPF (linux/filter.h). It loads in network order what the header has in the machine's.
_LOAD_WORD, _LOAD_HALF, _IF_EQUAL, _RETURN = 0x20, 0x28, 0x15, 0x06
_AT_TYPE, _AT_PORT, _AT_NEIGHBOUR_LINK = 4, 12, 20
_ACCEPT = 0xFFFFFFFF


def _own_changes(port: int, device: int) -> list[tuple[int, int, int, int]]:
    """A program that refuses messages of the port, and neighbours of other links."""
    return [
        (_LOAD_WORD, 0, 0, _AT_PORT),
        (_IF_EQUAL, 7, 0, socket.htonl(port)),
        (_LOAD_HALF, 0, 0, _AT_TYPE),
        (_IF_EQUAL, 1, 0, socket.htons(neighbours.RTM_NEWNEIGH)),
        (_IF_EQUAL, 0, 3, socket.htons(neighbours.RTM_DELNEIGH)),
        (_LOAD_WORD, 0, 0, _AT_NEIGHBOUR_LINK),
        (_IF_EQUAL, 1, 0, socket.htonl(device)),
        (_RETURN, 0, 0, 0),
        (_RETURN, 0, 0, _ACCEPT),
        (_RETURN, 0, 0, 0),
    ]
