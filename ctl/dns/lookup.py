"""The lookups of a pod's resolver, done with real packets from its network namespace.

As glibc does them (resolv/res_query.c, res_send.c): the candidates of the search list one after the
other, for each both families at once from one socket; one server after the other, all of them again
for each attempt; TCP where an answer is truncated.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from ctl.dns.codec import PORT, TYPES, BadAnswer, BadName, Query, Reply, decode, encode
from ctl.dns.resolv_conf import ResolvConf
from kernel.model import IPAddress
from kernel.netlink.codec import FAMILY
from kernel.netns import Namespace, inside

_DATAGRAM_MAX = 65535
_GONE = frozenset({"SERVFAIL", "REFUSED", "NOTIMP", "FORMERR"})
"""Codes after which the next server is asked."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One query, and what became of it.

    result: the code of the answer, "no answer", "refused" (nothing listens there), "unreachable".
    seconds: until the answer; None without one.
    """

    name: str
    kind: str
    server: str
    transport: str = "udp"
    result: str = "no answer"
    seconds: float | None = None
    addresses: tuple[IPAddress, ...] = ()

    @property
    def is_lost(self) -> bool:
        """Whether nothing came back at all."""
        return self.result == "no answer"


@dataclass(slots=True)
class Lookup:
    """A whole lookup. answered: the candidate that has addresses, empty where none has."""

    name: str
    sent: list[Sent] = field(default_factory=list)
    answered: str = ""

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """What the application gets."""
        found = (a for s in self.sent if s.name == self.answered for a in s.addresses)
        return tuple(dict.fromkeys(found))

    @property
    def waste(self) -> list[Sent]:
        """The queries for candidates that do not exist, before one that does."""
        return [s for s in self.sent if s.name != self.answered] if self.answered else []

    @property
    def lost(self) -> list[Sent]:
        """Those without an answer."""
        return [s for s in self.sent if s.is_lost]


def look_up(
    pod: Namespace, name: str, conf: ResolvConf, kinds: Sequence[str] = tuple(TYPES)
) -> Lookup:
    """Look a name up from the pod. Raises BadName."""
    encode(Query(0, name, kinds[0]))
    lookup = Lookup(name)
    for candidate in filter(_can_be, conf.candidates(name)):
        found = _ask_servers(pod, candidate, conf, kinds)
        lookup.sent += found
        if any(sent.addresses for sent in found):
            lookup.answered = candidate
        if lookup.answered or all(sent.seconds is None for sent in found):
            break  # of servers that are mute the next candidates are not asked
    return lookup


def _can_be(candidate: str) -> bool:
    try:
        encode(Query(0, candidate, "A"))
    except BadName:
        return False
    return True


def _ask_servers(pod: Namespace, name: str, conf: ResolvConf, kinds: Sequence[str]) -> list[Sent]:
    """Ask for one candidate until both families have an answer, or nobody gives any."""
    done: list[Sent] = []
    open_kinds = list(kinds)
    for _attempt in range(conf.attempts):
        for number, server in enumerate(conf.servers):
            # glibc doubles the time for each server, and divides it by their number (send_dg).
            patience = conf.timeout * (1 << number) / (len(conf.servers) if number else 1)
            batches = [[kind] for kind in open_kinds] if conf.one_by_one else [open_kinds]
            for batch in batches:
                done += _ask(pod, name, server, batch, patience)
            settled = {s.kind for s in done if s.seconds is not None and s.result not in _GONE}
            open_kinds = [kind for kind in open_kinds if kind not in settled]
            if not open_kinds:
                return done
    return done


def _ask(
    pod: Namespace, name: str, server: IPAddress, kinds: Sequence[str], patience: float
) -> list[Sent]:
    """Ask one server for some types at once."""
    number = int.from_bytes(os.urandom(2))
    queries = [Query(number + i & 0xFFFF, name, kind) for i, kind in enumerate(kinds)]
    sent = {q.number: Sent(name, q.kind, str(server)) for q in queries}
    try:
        with closing(_connect(pod, server, socket.SOCK_DGRAM)) as sock:
            began = time.monotonic()
            for query in queries:
                sock.send(encode(query))
            waiting = {query.number: query for query in queries}
            for query, reply in _receive(sock, waiting, began + patience):
                after = time.monotonic() - began
                sent[query.number] = replace(
                    sent[query.number], result=reply.code, seconds=after, addresses=reply.addresses
                )
                if reply.truncated:
                    sent[~query.number] = _ask_by_tcp(pod, query, server, patience)
    except OSError as error:
        result = "refused" if error.errno == errno.ECONNREFUSED else os.strerror(error.errno or 0)
        sent = {n: replace(s, result=result) if s.seconds is None else s for n, s in sent.items()}
    return list(sent.values())


def _connect(pod: Namespace, server: IPAddress, kind: socket.SocketKind) -> socket.socket:
    """A socket of the pod's that hears that server alone. Raises OSError."""
    with inside(pod):
        sock = socket.socket(FAMILY[server.version], kind | socket.SOCK_CLOEXEC)
    try:
        if kind == socket.SOCK_STREAM:
            sock.settimeout(5.0)
        sock.connect((str(server), PORT))
    except OSError:
        sock.close()
        raise
    return sock


def _receive(
    sock: socket.socket, waiting: dict[int, Query], deadline: float
) -> Iterator[tuple[Query, Reply]]:
    """Each answer as it comes, until all are there or time is over. Raises OSError."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            return
        data = sock.recv(_DATAGRAM_MAX)
        query = waiting.get(int.from_bytes(data[:2]))
        if query is None:
            continue
        try:
            reply = decode(data, query)
        except BadAnswer:
            continue  # as glibc does: the right one may come yet
        del waiting[query.number]
        yield query, reply


def _ask_by_tcp(pod: Namespace, query: Query, server: IPAddress, patience: float) -> Sent:
    sent = Sent(query.name, query.kind, str(server), "tcp")
    began = time.monotonic()
    try:
        with closing(_connect(pod, server, socket.SOCK_STREAM)) as sock:
            sock.settimeout(patience)
            data = encode(query)
            sock.sendall(len(data).to_bytes(2) + data)
            reply = decode(_read(sock, int.from_bytes(_read(sock, 2))), query)
    except TimeoutError:
        return sent
    except (OSError, BadAnswer) as error:
        return replace(sent, result=str(error))
    return replace(
        sent,
        result=reply.code,
        seconds=time.monotonic() - began,
        addresses=reply.addresses,
    )


def _read(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise OSError("the connection was closed early")
        data += more
    return data


@dataclass(frozen=True, slots=True)
class Burst:
    """Many queries in one second. seconds: of each answer, in order."""

    sent: int
    refused: int
    seconds: tuple[float, ...]

    @property
    def answered(self) -> int:
        """How many had an answer."""
        return len(self.seconds)


def burst(pod: Namespace, name: str, server: IPAddress, count: int, patience: float) -> Burst:
    """Send that many queries, spread over a second, and count answers. Raises OSError, BadName."""
    begun: dict[int, float] = {}
    taken: list[float] = []
    refused = 0
    with closing(_connect(pod, server, socket.SOCK_DGRAM)) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        start = time.monotonic()
        for number in range(count):
            data = encode(Query(number, name, "A"))
            while time.monotonic() < start + number / count:
                taken += _take(sock, begun)
                time.sleep(max(0.0, min(0.001, start + number / count - time.monotonic())))
            try:
                begun[number] = time.monotonic()
                sock.send(data)
            except OSError:
                refused += 1
        end = time.monotonic() + patience
        while len(taken) < count and time.monotonic() < end:
            select.select([sock], [], [], 0.05)
            taken += _take(sock, begun)
    return Burst(count, refused, tuple(sorted(taken)))


def _take(sock: socket.socket, begun: dict[int, float]) -> Iterable[float]:
    """How long those answers took that are there."""
    found: list[float] = []
    while True:
        try:
            number = int.from_bytes(sock.recv(_DATAGRAM_MAX)[:2])
        except OSError:
            return found
        if number in begun:
            found.append(time.monotonic() - begun.pop(number))
