"""Probes between this node's daemon and all others', in a thread of their own.

It sleeps until something comes or is due: no timer for each peer, and no more datagrams are read a
second than a cluster in trouble sends, whatever a stranger sends.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from random import Random

from daemon.desired import Desired
from daemon.health.budget import Budget
from daemon.health.outlets import Arrival, Failure, Outlets
from daemon.health.peers import Change, Peers, Probe
from daemon.health.report import HealthReport, make_report
from daemon.health.states import PeerHealth, State
from daemon.health.targets import Target, own_targets
from daemon.health.verdict import Place
from daemon.health.wire import NotOurs, Packet, parse, parse_head, render
from daemon.log import Log
from daemon.settings import HealthSettings

STOP_SECONDS = 10.0
_OPEN_AGAIN = 5.0
"""Seconds until a socket that could not be opened is tried again."""
_READS = 1000.0
"""So many datagrams a second are read."""
_DEAF = 0.1
"""Seconds for which nothing is read after too much."""
_TELL_GAP = 0.5
_PAUSE = 5.0
"""Seconds until probing begins anew after an error that nobody foresaw."""
_NAMED = 3
"""So many peers that fail at once are in the log by name."""


@dataclass(slots=True)
class Tally:
    """Datagrams since the daemon's start; all numbers only grow.

    sent: probes; answered: of those; served: probes of others that were answered; dropped: what
    came and counted for nothing, by cause: not podwire's (malformed), of no node that is known
    (unknown), an answer that nobody awaits (late), more probes than are answered (limited).
    """

    sent: int = 0
    answered: int = 0
    served: int = 0
    dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("malformed", "unknown", "late", "limited"), 0)
    )


class Health:
    """The health of all peers from `start` to `stop`; every method may be called by any thread.

    tally: what went and came.
    """

    def __init__(self, settings: HealthSettings, vxlan_port: int, log: Log) -> None:
        self.tally = Tally()
        self._settings, self._vxlan_port, self._log = settings, vxlan_port, log
        self._lock = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._desired: Desired | None = None
        self._random = Random(os.urandom(16))  # noqa: S311 - spreads load, keeps no secret
        self._peers, self._outlets = self._fresh()
        self._report, self._error = HealthReport(), ""
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def _fresh(self) -> tuple[Peers, Outlets]:
        self._taken: Desired | None = None
        self._own: tuple[Target, ...] = ()
        self._reads = Budget(_READS, _READS)
        self._deaf_until = self._open_again = self._tell_at = 0.0
        self._told, self._changes = -1, list[Change]()
        settings = self._settings
        peers = Peers(settings.interval, settings.budget, self._random, time.time)
        return peers, Outlets(settings.port)

    # For others.

    def start(self) -> None:
        """Start the thread. It probes once it has a plan."""
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; whether it did in time."""
        self._stopping = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def aim(self, desired: Desired) -> None:
        """Take a plan."""
        self._desired = desired
        os.eventfd_write(self._bell, 1)

    @property
    def report(self) -> HealthReport:
        """What the status says; at most half a second old."""
        return self._report

    def counts(self) -> Mapping[State, int]:
        """Peers by state."""
        with self._lock:
            return dict(self._peers.counts)

    @property
    def terminated(self) -> int:
        """Connections that ended since the start: their peer failed, left or moved."""
        return self._peers.terminated

    def peers(self) -> Sequence[PeerHealth]:
        """All of them, in any order."""
        with self._lock:
            return tuple(self._peers)

    def unwell(self) -> Sequence[PeerHealth]:
        """Those that were tried and are not established."""
        with self._lock:
            return tuple(self._peers.unwell())

    # The thread.

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._turn()
            except Exception as error:  # whatever it is, probing must go on
                self._begin_anew(error)
        self._outlets.close()

    def _begin_anew(self, error: Exception) -> None:
        if repr(error) != self._error:
            self._error = repr(error)
            self._log.error(f"probing of peers begins anew: {error!r}")
        self._report = HealthReport(fault=f"probing fails: {error!r}")
        with self._lock:
            self._outlets.close()
            self._peers, self._outlets = self._fresh()
        until = time.monotonic() + _PAUSE
        while not self._stopping and time.monotonic() < until:
            self._wait(until - time.monotonic(), deaf=True)

    def _turn(self) -> None:
        now = time.monotonic()
        self._wait(self._timeout(now), deaf=now < self._deaf_until)
        with self._lock:
            now = time.monotonic()
            self._prepare(now)
            if now >= self._deaf_until:
                self._read(now)
            for probe in self._peers.take(now, _nonce):
                self._send(probe, now)
            self._tell(now)

    def _timeout(self, now: float) -> float | None:
        waits = [self._peers.wait(now)]
        waits += [self._open_again - now] if self._outlets.fault else []
        waits += [self._tell_at - now] if self._told != self._peers.news else []
        waits += [self._deaf_until - now] if now < self._deaf_until else []
        return min((wait for wait in waits if wait is not None), default=None)

    def _wait(self, seconds: float | None, *, deaf: bool) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        if not deaf:
            poll.register(self._outlets.fileno(), select.POLLIN)
        found = poll.poll(None if seconds is None else ceil(max(0.0, seconds) * 1000))
        if any(fd == self._bell for fd, _events in found):
            os.eventfd_read(self._bell)

    def _prepare(self, now: float) -> None:
        """Have the sockets and the peers that the plan wants."""
        desired = self._desired
        if desired is None:
            return
        if desired is not self._taken:
            self._own = own_targets(desired)
            self._open_again = now
            self._taken = desired
            self._peers.aim(desired.nodes, desired.peers, now)
        if now >= self._open_again:
            self._open(desired, now)

    def _open(self, desired: Desired, now: float) -> None:
        before = self._outlets.fault
        self._outlets.aim(self._own)
        self._open_again = now + _OPEN_AGAIN if self._outlets.fault else float("inf")
        if self._outlets.fault != before:
            self._told = -1
            if self._outlets.fault:
                self._log.error(f"peers are not probed: {self._outlets.fault}")
        self._peers.place = Place(
            {path: outlet.own.address for path, outlet in self._outlets.by_path().items()},
            desired.pod_mtu,
            desired.overhead,
            self._settings.port,
            self._vxlan_port,
        )

    # Datagrams.

    def _send(self, probe: Probe, now: float) -> None:
        target, packet = probe.target, probe.packet
        outlet = self._outlets.by_path()[target.path]
        payload = render(packet, target.path.version)
        refusal = outlet.send(target.address, self._settings.port, payload)
        self.tally.sent += 1
        if refusal is not None:
            self._peers.refused(target, packet.nonce, refusal, now)

    def _read(self, now: float) -> None:
        for found in self._outlets.read():
            self._reads.spend(1)
            if isinstance(found, Failure):
                self._note_failure(found, now)
            else:
                self._note_arrival(found, now)
            if not self._reads.has(now):
                self._deaf_until = now + _DEAF
                return

    def _note_failure(self, failure: Failure, now: float) -> None:
        nonce = None
        if failure.payload:  # a router may give back no more than the headers
            try:
                nonce = parse_head(failure.payload).nonce
            except NotOurs:
                return
        self._peers.refused(failure.target, nonce, failure.refusal, now)

    def _note_arrival(self, arrival: Arrival, now: float) -> None:
        try:
            packet = parse(arrival.payload, arrival.origin.path.version)
        except NotOurs:
            self.tally.dropped["malformed"] += 1
            return
        if arrival.port != self._settings.port or not self._peers.knows(arrival.origin):
            self.tally.dropped["unknown"] += 1
        elif not packet.is_answer:
            self._answer(arrival, packet, now)
        elif self._peers.answered(arrival.origin, packet, now):
            self.tally.answered += 1
        else:
            self.tally.dropped["late"] += 1

    def _answer(self, arrival: Arrival, packet: Packet, now: float) -> None:
        heard = self._peers.hear(arrival.origin, now)
        if heard is None:
            self.tally.dropped["limited"] += 1
            return
        answer = Packet(True, heard, packet.size, packet.nonce)
        payload = render(answer, arrival.origin.path.version)
        arrival.outlet.send(arrival.origin.address, arrival.port, payload)
        self.tally.served += 1

    # What it says.

    def _tell(self, now: float) -> None:
        self._changes += self._peers.changes
        self._peers.changes.clear()
        if now < self._tell_at or self._told == self._peers.news:
            return
        self._tell_at, self._told = now + _TELL_GAP, self._peers.news
        peers = self._peers
        self._report = make_report(peers.counts, peers.unwell(), self._outlets.fault)
        changes, self._changes = self._changes, []
        self._log_failed([c.health for c in changes if c.health.state is State.FAILED])
        self._log_well([c.health.name for c in changes if c.health.state is State.ESTABLISHED])

    def _log_failed(self, failed: Sequence[PeerHealth]) -> None:
        for health in failed[:_NAMED]:
            self._log.warning(f"{health.name} is not reached ({health.reason}): {health.detail}")
        if len(failed) > _NAMED:
            self._log.warning(f"{len(failed) - _NAMED} more nodes are not reached: podwired status")

    def _log_well(self, names: Sequence[str]) -> None:
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            self._log.info(f"reached again: {' '.join(names[:_NAMED])}{more}")


def _nonce() -> int:
    return int.from_bytes(os.urandom(8))
