"""The lookups that a pod's own programs do, watched at the node's end of its link.

Packet path: what the pod sends comes in there before any translation, what it receives goes out
there after it; so its queries go to port 53 whatever port the cluster's server has.
"""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from ctl.dns.codec import PORT, BadAnswer, read_heading
from kernel.packet_socket import PacketSocket
from kernel.packets import UDP, decode

PATIENCE = 2.0
"""Seconds after which a query without an answer counts as lost."""
NAMES_MAX = 1000
_OPEN_MAX = 50_000
_FRAME_MAX = 600  # bytes: all headers and the longest question
_IPV4, _IPV6 = 0x0800, 0x86DD

Key = tuple[str, int, str, int, str, str]
"""Client, its port, server, number, name and type."""


@dataclass(slots=True)
class NameCount:
    """The queries for one name and type. repeated: of them, those that repeat one without an
    answer; codes: of the answers; slowest: in seconds."""

    name: str
    kind: str
    queries: int = 0
    repeated: int = 0
    lost: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0

    @property
    def answers(self) -> int:
        """How many had an answer."""
        return self.codes.total()


class Tally:
    """What was seen so far. peak: queries in the second that had most of them."""

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], NameCount] = {}
        self.peak = 0
        self._open: dict[Key, float] = {}
        self._second, self._in_second = -1, 0

    @property
    def counts(self) -> list[NameCount]:
        """The names, the most frequent first."""
        return sorted(self.names.values(), key=lambda c: (-c.queries, c.name, c.kind))

    def take(self, frame: bytes, now: float, *, to_pod: bool) -> None:
        """Take a frame in; what is no DNS is passed over."""
        packet = decode(frame)
        if packet is None or packet.protocol != UDP or packet.ports is None:
            return
        source, target = str(packet.source), str(packet.to)
        source_port, target_port = packet.ports
        try:
            heading = read_heading(packet.payload)
        except BadAnswer:
            return
        rest = heading.number, heading.name, heading.kind
        if not to_pod and target_port == PORT and not heading.code:
            self._note_query((source, source_port, target, *rest), now)
        elif to_pod and source_port == PORT and heading.code:
            self._note_answer((target, target_port, source, *rest), heading.code, now)

    def _note_query(self, key: Key, now: float) -> None:
        count = self._count(key)
        if count is None or len(self._open) >= _OPEN_MAX:
            return
        self._in_second = self._in_second + 1 if int(now) == self._second else 1
        self._second = int(now)
        self.peak = max(self.peak, self._in_second)
        count.queries += 1
        # A resolver repeats a query with its number, from its port.
        count.repeated += key in self._open
        count.lost += key in self._open
        self._open[key] = now

    def _note_answer(self, key: Key, code: str, now: float) -> None:
        began, count = self._open.pop(key, None), self._count(key)
        if began is not None and count is not None:
            count.codes[code] += 1
            count.slowest = max(count.slowest, now - began)

    def _count(self, key: Key) -> NameCount | None:
        name, kind = key[4:]
        if (name, kind) not in self.names and len(self.names) >= NAMES_MAX:
            return None
        return self.names.setdefault((name, kind), NameCount(name, kind))

    def end(self, now: float) -> None:
        """Nothing more comes: what has waited for long is lost, what is young is left out."""
        for key, began in self._open.items():
            count = self._count(key)
            if count is not None:
                count.lost += now - began >= PATIENCE
                count.queries -= now - began < PATIENCE
        self._open.clear()
        self.names = {key: count for key, count in self.names.items() if count.queries > 0}


class Watched(NamedTuple):
    """What was seen at a link. missed: frames that came too fast to be read."""

    tally: Tally
    missed: int


def watch(links: Sequence[str], seconds: float) -> dict[str, Watched]:
    """Watch links of the node, the ends of pods' pairs. Raises KernelError."""
    with ExitStack() as stack:
        sockets = {link: stack.enter_context(PacketSocket(link, None, _FILTER)) for link in links}
        by_number = {sock.fileno(): (sock, Tally()) for sock in sockets.values()}
        end = time.monotonic() + seconds
        poll = select.poll()
        for number in by_number:
            poll.register(number, select.POLLIN)
        while (left := end - time.monotonic()) > 0:
            for number, _event in poll.poll(left * 1000):
                sock, tally = by_number[number]
                for frame in sock.read():
                    tally.take(frame.data, time.monotonic(), to_pod=frame.outgoing)
        found = {}
        for link, sock in sockets.items():
            tally = by_number[sock.fileno()][1]
            tally.end(time.monotonic())
            found[link] = Watched(tally, sock.dropped)
        return found


# Classic BPF (linux/filter.h): code, jumps if true and false, value.
_LOAD16, _LOAD8, _LOAD16_X, _LOAD_X_HEADER = 0x28, 0x30, 0x48, 0xB1
_IF, _GO, _RETURN = 0x15, 0x05, 0x06
_FILTER = (
    (_LOAD16, 0, 0, 12),
    (_IF, 0, 6, _IPV4),
    (_LOAD8, 0, 0, 14 + 9),
    (_IF, 0, 11, UDP),
    (_LOAD_X_HEADER, 0, 0, 14),  # X: the length of the IPv4 header
    (_LOAD16_X, 0, 0, 14),
    (_IF, 7, 0, PORT),
    (_GO, 0, 0, 4),  # go on with the destination's port
    (_IF, 0, 6, _IPV6),
    (_LOAD8, 0, 0, 14 + 6),
    (_IF, 0, 4, UDP),
    (_GO, 0, 0, 4),
    (_LOAD16_X, 0, 0, 14 + 2),
    (_IF, 0, 1, PORT),
    (_RETURN, 0, 0, _FRAME_MAX),
    (_RETURN, 0, 0, 0),
    (_LOAD16, 0, 0, 14 + 40),
    (_IF, 2, 0, PORT),
    (_LOAD16, 0, 0, 14 + 42),
    (_IF, 0, 1, PORT),
    (_RETURN, 0, 0, _FRAME_MAX),
    (_RETURN, 0, 0, 0),
)
