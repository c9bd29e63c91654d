"""The kernel's notifications of a node: what changed, and when."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType

from kernel.diff import Key, key_of
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, Route
from kernel.netlink import neighbours, routes
from kernel.netlink.codec import Message, unpack
from tests.bench.routing.fleet import DEVICE
from tests.bench.world import Host

# linux/rtnetlink.h: RTNLGRP_NEIGH, _IPV4_ROUTE, _IPV6_ROUTE.
_GROUPS = sum(1 << (group - 1) for group in (3, 7, 11))
_BUFFER_BYTES = 256 << 20
_DELETED = frozenset({routes.RTM_DELROUTE, neighbours.RTM_DELNEIGH})


class EventsLost(Exception):
    """The kernel dropped notifications, so what was seen proves nothing."""


@dataclass(frozen=True, slots=True)
class Change:
    """An entry that came, changed or went. time: seconds, when its notification was read."""

    time: float
    deleted: bool
    entry: Entry


class Watch:
    """Listens for as long as the context lasts.

    gap: seconds between two looks. 0 is for exact times of a few changes: each wakes the
    listener at once. With a gap a flood of changes is not slowed down by waking anybody.
    """

    def __init__(self, host: Host, gap: float = 0.0) -> None:
        self._gap = gap
        self._seen: list[tuple[float, bytes]] = []
        self._lost = self._done = False
        self._socket = host.call(_subscribe)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done = True
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while not self._done:
            if self._gap:
                time.sleep(self._gap)
            elif not poll.poll(50):
                continue
            self._drain()
        self._drain()

    def _drain(self) -> None:
        try:
            while True:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
                self._seen.append((time.monotonic(), data))
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS
            self._lost = True

    @property
    def count(self) -> int:
        """Notifications so far."""
        return len(self._seen)

    def changes(self, since: int = 0) -> list[Change]:
        """Changes of what leads to peers, from a `count` on. Raises EventsLost."""
        if self._lost:
            raise EventsLost
        return [change for when, data in self._seen[since:] for change in _read(when, data)]


def completed(changes: Iterable[Change], wanted: int) -> float:
    """When so many different entries had come; ValueError if they never did."""
    present: set[Key] = set()
    for change in changes:
        (present.discard if change.deleted else present.add)(key_of(change.entry))
        if len(present) == wanted:
            return change.time
    raise ValueError(f"{len(present)} of {wanted} entries came")


def _subscribe() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    made.setsockopt(socket.SOL_SOCKET, 33, _BUFFER_BYTES)  # SO_RCVBUFFORCE
    made.bind((0, _GROUPS))
    return made


def _read(when: float, data: bytes) -> Iterator[Change]:
    for _sequence, _port, message in unpack(data):
        entry = _read_entry(message)
        if entry is not None:
            yield Change(when, message.type in _DELETED, entry)


def _read_entry(message: Message) -> Entry | None:
    """An entry that leads to a peer: a marked route, or what is permanent on a link.

    Links have no names here: permanent neighbours and FDB entries are on podwire's device alone.
    """
    if message.type in (routes.RTM_NEWROUTE, routes.RTM_DELROUTE):
        route = routes.parse_named_route(message, {})
        ours = isinstance(route, Route) and route.protocol == RTPROT_PODWIRE_PEERS
        return replace(route, link=DEVICE) if route and ours else None
    if message.type in (neighbours.RTM_NEWNEIGH, neighbours.RTM_DELNEIGH):
        _index, entry, permanent = neighbours.parse_entry(message, DEVICE)
        return entry if permanent or message.type == neighbours.RTM_DELNEIGH else None
    return None
