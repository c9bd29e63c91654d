"""Connection tracking, through ctnetlink (linux/netfilter/nfnetlink_conntrack.h).

Entries are deleted by a pattern. The kernel walks its table once for each, and not at all where it
tracks nothing in this namespace (net/netfilter/nf_conntrack_core.c, nf_ct_iterate_cleanup). From
some patterns on one dump of everything costs less than their walks. What a dump finds is deleted
entry by entry: so it is for many patterns, for those that the kernel cannot filter by, and before
Linux 6.11, which filters dumps alone.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from kernel.errors import KernelError
from kernel.model import IPAddress, IPNetwork
from kernel.netlink.codec import FAMILY, Message, attribute, attributes, nested, nfgen, u8, u32
from kernel.netlink.socket import NETLINK_NETFILTER, Netlink, open_netlink

# NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_*
_GET, _DELETE, _STATS = 1 << 8 | 1, 1 << 8 | 2, 1 << 8 | 5
_STATS_ENTRIES = 1
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25  # CTA_*
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_SOURCE, _DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}
_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
# net/netfilter/nf_internals.h, CTA_FILTER_F_*
_BY_SOURCE, _BY_DESTINATION, _BY_PROTOCOL, _BY_DESTINATION_PORT = 1 << 0, 1 << 1, 1 << 3, 1 << 5
_HEADER_BYTES = 4  # struct nfgenmsg
# A kernel that deletes by whole tuples alone, or one without connection tracking.
_NO_FILTER = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
_GONE = frozenset({errno.ENOENT})
WALKS_MAX = 8
"""Patterns for which the kernel's walks cost less than one dump."""
_PER_BATCH = 256


class Flow(NamedTuple):
    """Connections to a port of the node, as their first packet has it. address: None for any."""

    version: int
    protocol: int
    port: int
    address: IPAddress | None = None


class Pattern(NamedTuple):
    """Entries of which one direction's packets look so. direction: _ORIGINAL or _REPLY.

    Addresses are packed; what is empty or 0 may be anything.
    """

    version: int
    direction: int
    source: bytes = b""
    destination: bytes = b""
    protocol: int = 0
    port: int = 0

    @property
    def is_filter(self) -> bool:
        """Whether the kernel can filter by it.

        It takes an IPv6 address for all others, for it compares the wrong way round
        (net/netfilter/nf_conntrack_netlink.c, ctnetlink_filter_match_tuple, up to 6.18 at least).
        """
        return self.version == 4 or not (self.source or self.destination)


def forget_flows(flows: Iterable[Flow]) -> None:
    """Delete the entries of these connections, wherever they lead: their next packet is tracked, or
    translated, anew.

    Raises KernelError.
    """
    forget(map(_of_flow, flows))


def forget_flows_to_node(flows: Iterable[Flow]) -> None:
    """Delete the entries of those of these connections that go to an address of this node.

    Those to the same port of somebody else are other pods', and may be translated by others. Raises
    KernelError.
    """
    _forget_chosen(map(_of_flow, flows), _to_node)


def _forget_chosen(
    patterns: Iterable[Pattern], choose: Callable[[Sequence[Message]], list[Message]]
) -> None:
    known = tuple(dict.fromkeys(patterns))
    if known:
        with open_netlink(NETLINK_NETFILTER) as nl:
            if _tracks(nl):
                forget_listed(nl, known, choose)


def _of_flow(flow: Flow) -> Pattern:
    to = flow.address.packed if flow.address else b""
    return Pattern(flow.version, _ORIGINAL, b"", to, flow.protocol, flow.port)


def _to_node(entries: Sequence[Message]) -> list[Message]:
    """Those of the entries whose connections go to an address of this node."""
    targets = [ip_address(_ways(entry)[1].destination) for entry in entries]
    own = _own(targets)
    return [entry for entry, to in zip(entries, targets, strict=True) if to in own]


def _own(addresses: Collection[IPAddress]) -> Collection[IPAddress]:
    """Those that are the node's own."""
    if not addresses:
        return ()
    from kernel.paths import local_addresses  # few calls find any

    with open_netlink() as nl:
        return local_addresses(nl, addresses)


class _Way(NamedTuple):
    """What the packets of one direction of an entry have; addresses are packed."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    port: int


def _ways(entry: Message) -> tuple[int, _Way, _Way]:
    """The IP version of an entry, and both of its directions, the original one first."""
    version = 4 if entry.body[0] == FAMILY[4] else 6
    found = attributes(entry.body, _HEADER_BYTES)
    there, back = (_way(version, found.get(which, b"")) for which in (_ORIGINAL, _REPLY))
    return version, there, back


def _way(version: int, data: bytes) -> _Way:
    parts = attributes(data)
    addresses = attributes(parts.get(_TUPLE_IP, b""))
    ends = attributes(parts.get(_TUPLE_PROTOCOL, b""))
    kinds = (_PROTOCOL_NUMBER, _SOURCE_PORT, _DESTINATION_PORT)
    numbers = (int.from_bytes(ends.get(kind, b"")) for kind in kinds)
    source, to = (addresses.get(side[version], b"") for side in (_SOURCE, _DESTINATION))
    return _Way(source, to, *numbers)


def forget_pods(addresses: Iterable[IPAddress]) -> None:
    """Delete the entries of all connections from and to these addresses, translated or not.

    Raises KernelError.
    """
    forget(of_pods(addresses))


def forget_senders(addresses: Iterable[IPAddress]) -> None:
    """Delete the entries of connections to these addresses, translated or not.

    A sender that goes on after the pod has ended makes such an entry anew. Raises KernelError.
    """
    # Where a connection leads is where its answers come from.
    forget(Pattern(address.version, _REPLY, address.packed) for address in addresses)


def of_pods(addresses: Iterable[IPAddress]) -> Iterator[Pattern]:
    """The patterns of all connections from and to these addresses."""
    for address in addresses:
        for direction in (_ORIGINAL, _REPLY):
            yield Pattern(address.version, direction, address.packed)


def forget(patterns: Iterable[Pattern]) -> None:
    """Delete the entries that any of the patterns matches. Raises KernelError."""
    chosen = tuple(dict.fromkeys(patterns))
    if not chosen:
        return
    with open_netlink(NETLINK_NETFILTER) as nl:
        walked = [p for p in chosen if p.is_filter] if len(chosen) <= WALKS_MAX else []
        refused = _walk(nl, walked) if walked else []
        listed = [p for p in chosen if p not in walked or p in refused]
        if listed and _tracks(nl):
            forget_listed(nl, listed)


def _walk(nl: Netlink, patterns: Sequence[Pattern]) -> list[Pattern]:
    """Let the kernel delete by these patterns; those that it cannot take."""
    requests = [_request(_DELETE, pattern) for pattern in patterns]
    refused = []
    for pattern, request, answer in zip(patterns, requests, nl.exchange(requests), strict=True):
        if answer.errno in _NO_FILTER:
            refused.append(pattern)
        elif answer.errno not in (0, errno.ENOENT):
            raise KernelError(str(request), "", answer.errno, answer.hint)
    return refused


class StaleFlow(NamedTuple):
    """A connection to an address and port that is translated to a pod's address."""

    to: IPAddress
    port: int
    pod: IPAddress


def find_stale_flows(prefixes: Iterable[IPNetwork], alive: Container[IPAddress]) -> list[StaleFlow]:
    """Tracked connections that are translated to addresses of the prefixes that none has.

    alive: the addresses that there are. Raises KernelError.
    """
    wanted = [p for p in prefixes if p.version == 4 or p.prefixlen]
    if not wanted:
        return []
    beginnings = b"|".join(re.escape(p.network_address.packed[: p.prefixlen // 8]) for p in wanted)
    found: dict[StaleFlow, None] = {}
    with open_netlink(NETLINK_NETFILTER) as nl:
        if not _tracks(nl):
            return []
        message = Message(_GET, 0, nfgen(), "list connections")
        for entry in nl.search(message, re.compile(beginnings, re.DOTALL)):
            flow = _translated(entry)
            if flow and flow.pod not in alive and any(flow.pod in p for p in wanted):
                found[flow] = None
    return list(found)


def _translated(entry: Message) -> StaleFlow | None:
    """Where a connection leads, if that is elsewhere than its first packet went."""
    _version, there, back = _ways(entry)
    if not there.destination or not back.source or there.destination == back.source:
        return None
    return StaleFlow(ip_address(there.destination), there.port, ip_address(back.source))


def forget_listed(
    nl: Netlink,
    patterns: Collection[Pattern],
    choose: Callable[[Sequence[Message]], list[Message]] = list,
) -> None:
    """Delete what a dump finds: filtered dumps for few patterns, or one of all entries.

    choose: those of the entries found that go. Raises KernelError.
    """
    filtered = [p for p in patterns if p.is_filter] if len(patterns) <= WALKS_MAX else []
    lists = [_request(_GET, pattern) for pattern in filtered]
    families = {FAMILY[p.version] for p in patterns if p not in filtered}
    if families:
        family = families.pop() if len(families) == 1 else 0
        lists.append(Message(_GET, 0, nfgen(family), "list connections"))
    wanted, known = re.compile(b"|".join(map(_expression, patterns))), frozenset(patterns)
    for message in lists:
        matching = nl.search(message, wanted)
        found = choose([e for e in matching if not known.isdisjoint(_patterns_of(e))])
        for start in range(0, len(found), _PER_BATCH):
            batch = [_delete(entry) for entry in found[start : start + _PER_BATCH]]
            nl.run(batch, tolerate=_GONE)


def tracks_connections() -> bool:
    """Whether the kernel has tracked any connection here lately. Raises KernelError."""
    with open_netlink(NETLINK_NETFILTER) as nl:
        return _tracks(nl)


def _tracks(nl: Netlink) -> bool:
    answer = nl.exchange([Message(_STATS, 0, nfgen())])[0]
    stats = attributes(answer.objects[0].body, _HEADER_BYTES) if answer.objects else {}
    return any(stats.get(_STATS_ENTRIES, b""))


def _request(kind: int, pattern: Pattern) -> Message:
    """The message that lists or deletes the entries of a pattern."""
    version, direction, source, destination, protocol, port = pattern
    addresses, ports = b"", b""
    flags = 0
    if source:
        flags |= _BY_SOURCE
        addresses += attribute(_SOURCE[version], source)
    if destination:
        flags |= _BY_DESTINATION
        addresses += attribute(_DESTINATION[version], destination)
    if protocol:
        flags |= _BY_PROTOCOL | _BY_DESTINATION_PORT
        ports = u8(_PROTOCOL_NUMBER, protocol)
        ports += attribute(_DESTINATION_PORT, port.to_bytes(2))
    parts = [nested(_TUPLE_IP, addresses)] if addresses else []
    parts += [nested(_TUPLE_PROTOCOL, ports)] if ports else []
    by = {_ORIGINAL: 0, _REPLY: 0, direction: flags}
    chosen = nested(_FILTER, *(u32(which, by[which]) for which in (_ORIGINAL, _REPLY)))
    body = nfgen(FAMILY[version]) + nested(direction, *parts) + chosen
    return Message(kind, 0, body, "forget tracked connections")


def _expression(pattern: Pattern) -> bytes:
    """What an entry's bytes have if the pattern matches it; others may have it, too."""
    port = attribute(_DESTINATION_PORT, pattern.port.to_bytes(2))
    return re.escape(pattern.source or pattern.destination or port)


def _patterns_of(entry: Message) -> Iterator[Pattern]:
    """All patterns that match an entry."""
    version, there, back = _ways(entry)
    for direction, way in ((_ORIGINAL, there), (_REPLY, back)):
        yield Pattern(version, direction, way.source)
        yield Pattern(version, direction, b"", b"", way.protocol, way.port)
        yield Pattern(version, direction, b"", way.destination, way.protocol, way.port)


def _delete(entry: Message) -> Message:
    """The message that deletes this entry, and none that has taken its place."""
    found = attributes(entry.body, _HEADER_BYTES)
    body = entry.body[:_HEADER_BYTES] + nested(_ORIGINAL, found[_ORIGINAL])
    body += b"".join(attribute(kind, found[kind]) for kind in (_ZONE, _ID) if kind in found)
    return Message(_DELETE, 0, body, "forget a tracked connection")


class Connection(NamedTuple):
    """A tracked connection as the node forwards it: after DNAT, and before SNAT.

    Ports are 0 where the protocol has none.
    """

    source: IPAddress
    destination: IPAddress
    protocol: int
    source_port: int
    port: int

    @property
    def reverse(self) -> Connection:
        """Its packets in the other direction."""
        ends = self.destination, self.source
        return Connection(*ends, self.protocol, self.port, self.source_port)


def forget_forbidden(
    addresses: Iterable[IPAddress],
    is_forbidden: Callable[[Connection], bool],
    found_some: Callable[[Iterable[Connection]], None],
) -> list[Connection]:
    """Delete the entries of connections from and to these addresses that are forbidden; these.

    found_some: is given connections before their entries go. Those of the node itself, which it
    does not forward, are left alone. Raises KernelError.
    """
    found: list[Connection] = []

    def choose(entries: Sequence[Message]) -> list[Message]:
        chosen = [(entry, c) for entry in entries if is_forbidden(c := _connection(entry))]
        own = _own({end for _entry, c in chosen for end in (c.source, c.destination)})
        forwarded = [(e, c) for e, c in chosen if c.source not in own and c.destination not in own]
        if forwarded:
            found_some(c for _entry, c in forwarded)
            found.extend(c for _entry, c in forwarded)
        return [entry for entry, _c in forwarded]

    _forget_chosen(of_pods(addresses), choose)
    return [*dict.fromkeys(found)]


def _connection(entry: Message) -> Connection:
    """The connection of an entry. Where it leads is where its answers come from."""
    _version, there, back = _ways(entry)
    ends = ip_address(there.source), ip_address(back.source)
    return Connection(*ends, there.protocol, there.source_port, back.source_port)


@dataclass(slots=True)
class _Batch:
    """The addresses that one pass is for, and its outcome."""

    addresses: set[IPAddress] = field(default_factory=set)
    done: bool = False
    error: KernelError | None = None


class SharedPass:
    """`forget_pods` for many threads of one namespace: what comes during a pass shares the next."""

    def __init__(self) -> None:
        self._mutex, self._passing = threading.Lock(), threading.Lock()
        self._waiting = _Batch()

    def forget_pods(self, addresses: Iterable[IPAddress]) -> None:
        """The same, and raises the same."""
        with self._mutex:
            mine = self._waiting
            mine.addresses.update(addresses)
        with self._passing:
            if not mine.done:
                with self._mutex:
                    self._waiting = _Batch()
                try:
                    forget_pods(mine.addresses)
                except KernelError as error:
                    mine.error = error
                finally:
                    mine.done = True
        if mine.error is not None:
            raise mine.error
