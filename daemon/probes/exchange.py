"""Datagrams to and from peers: what goes out, and what may be made of what comes in."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from daemon.probes.inspection import Refusal
from daemon.probes.peers import Peers, Probe
from daemon.probes.protocol import HELD_MAX, NotOurs, Packet, parse, parse_head, render
from daemon.probes.sockets import Arrival, Failure, Outlets
from daemon.probes.targets import Target

_NO_WAY = Refusal("unreachable", "this node has no such address any more")
_CAUSES = ("malformed", "unknown", "late", "limited", "flooded")
_FLOOD_SECONDS = 10.0
"""For so long after its last moment a flood is told."""


@dataclass(slots=True)
class Tally:
    """Datagrams since the daemon's start; all numbers only grow.

    sent: probes; answered: of those; served: probes of others that were answered; dropped: what
    came and counted for nothing, by cause: not podwire's (malformed), of no node that is known
    (unknown), an answer that nobody awaits (late), more probes than are answered (limited), for
    want of room (flooded). What the kernel keeps from us for its form or its sender is malformed.
    """

    sent: int = 0
    answered: int = 0
    served: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_CAUSES, 0))


class Exchange:
    """Sends probes, reads answers, answers the probes of others.

    flood: where more comes than can be read, and who sends most of it; empty while none does.
    flood_ends: when that is over if nothing more comes of it.
    """

    def __init__(self, peers: Peers, outlets: Outlets, tally: Tally, port: int) -> None:
        self._peers, self._outlets, self._tally, self._port = peers, outlets, tally, port
        self.flood, self.flood_ends = "", float("inf")

    def send(self, probe: Probe, now: float) -> None:
        """Send a probe."""
        target, packet = probe.target, probe.packet
        payload = render(packet, target.path.version)
        outlet = self._outlets.by_path.get(target.path)
        probe.at = time.monotonic()
        refusal = outlet.send(target.address, self._port, payload) if outlet else _NO_WAY
        self._tally.sent += 1
        if refusal is not None:
            self._peers.refused(target, packet.nonce, refusal, now)

    def read(self, ready: Iterable[tuple[int, int]], now: float) -> None:
        """Take in what came, of what `Outlets.wait` said."""
        for found in self._outlets.read(ready):
            if isinstance(found, Failure):
                self._note_failure(found, now)
            else:
                self._note_arrival(found, now)
        self._note_lost(now)

    def _note_lost(self, now: float) -> None:
        outlets, dropped = self._outlets, self._tally.dropped
        dropped["malformed"] += outlets.filtered
        dropped["flooded"] += outlets.overflowed
        outlets.filtered = outlets.overflowed = 0
        for own, senders in outlets.flooded.items():
            self._peers.note_deaf(own.path, now)
            self.flood_ends = now + _FLOOD_SECONDS
            self.flood = tell_flood(own, self._port, senders)
        if now >= self.flood_ends:
            self.flood, self.flood_ends = "", float("inf")

    def _note_failure(self, failure: Failure, now: float) -> None:
        nonce = None
        if failure.payload:  # a router may give back no more than the headers
            try:
                nonce = parse_head(failure.payload).nonce
            except NotOurs:
                return
        self._peers.refused(failure.target, nonce, failure.refusal, now)

    def _note_arrival(self, arrival: Arrival, now: float) -> None:
        dropped = self._tally.dropped
        # First what costs least.
        if arrival.port != self._port or not self._peers.knows(arrival.origin):
            dropped["unknown"] += 1
            return
        try:
            packet = parse(arrival.payload, arrival.origin.path.version)
        except NotOurs:
            dropped["malformed"] += 1
            return
        if not packet.is_answer:
            self._answer(arrival, packet, now)
        elif self._peers.answered(arrival.origin, packet, arrival.received, now):
            self._tally.answered += 1
        else:
            dropped["late"] += 1

    def _answer(self, arrival: Arrival, packet: Packet, now: float) -> None:
        heard = self._peers.hear(arrival.origin, now, packet.heard)
        if heard is None:
            self._tally.dropped["limited"] += 1
            return
        held = int((time.monotonic() - arrival.received) * 1e6)
        answer = Packet(True, heard, packet.size, packet.nonce, min(held, HELD_MAX))
        payload = render(answer, arrival.origin.path.version)
        arrival.outlet.send(arrival.origin.address, arrival.port, payload)
        self._tally.served += 1


def tell_flood(own: Target, port: int, senders: Sequence[str]) -> str:
    """Words for a flood."""
    address = f"[{own.address}]" if ":" in own.address else own.address
    by = f" by {', '.join(senders)}" if senders else ""
    return (
        f"probes are flooded at {address}:{port}{by}: what is lost there counts against no node "
        "meanwhile; end who sends that, or drop it on its way"
    )
