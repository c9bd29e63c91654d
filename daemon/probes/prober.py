"""The prober: sends probes to all peers and answers theirs, in a thread of its own.

It sleeps until something is received or due, without a timer for each peer. Under load it has two
iterations a second, and reads a bounded number of datagrams in each, so that no sender costs more
than a few percent of a core. The kernel stamps datagrams with their time of arrival, so round trips
are exact all the same. A probe that may have been lost to such an overload judges no peer.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from daemon.config.schema import HealthSettings
from daemon.journal import Journal
from daemon.log import Log
from daemon.model import Desired
from daemon.outages import Outages
from daemon.probes.diagnosis import LocalNode, Rejection
from daemon.probes.peers import InFlight, Peers
from daemon.probes.protocol import DELAY_MAX, InvalidPacket, parse, parse_header, render
from daemon.probes.report import HealthReport, PeerHealth, State, make_report
from daemon.probes.schedule import Target, TokenBucket, own_targets
from daemon.probes.sockets import Datagram, DeliveryError, Sockets

STOP_SECONDS = 10.0
_REOPEN = 5.0
"""Seconds until a socket that could not be opened is tried again."""
ITERATIONS, _ITERATIONS_BURST = 2.0, 20.0
"""Iterations a second, and after a rest: waking up is what costs."""
_IDLE = 20.0
"""Seconds without anything to do after which the thread shows that it runs."""
_REPORT_GAP, _REPORT_GAP_MAX, _REPORT_GAP_EACH = 0.5, 5.0, 0.001
"""Seconds between reports at least and at most, and for each peer."""
_DROPS_GAP = 10.0
"""Seconds until a report whose number of dropped datagrams alone is old is replaced."""
_OVERLOAD_SECONDS = 10.0
"""For so long after its last moment an overload is reported."""
_RESTART = 5.0
"""Seconds until the prober restarts after an unexpected error."""
_NO_ADDRESS = Rejection("unreachable", "this node has no such address any more")


@dataclass(slots=True)
class ProbeCounts:
    """Datagrams since the daemon's start.

    sent: probes; answered: those of them with an answer in time; served: probes of peers that were
    answered; dropped: invalid, of no peer, late, or beyond the limits.
    """

    sent: int = 0
    answered: int = 0
    served: int = 0
    dropped: int = 0


class Prober:
    """Probes all peers from `start` to `stop`; every method may be called by any thread.

    blocked: why packets get nowhere on this node, set by others.
    """

    def __init__(
        self,
        settings: HealthSettings,
        vxlan_port: int,
        log: Log,
        journal: Journal,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.counts = ProbeCounts()
        self._settings, self._vxlan_port, self._log = settings, vxlan_port, log
        self._beat, self._outages = beat, Outages(journal, "peer", log)
        self._lock = threading.Lock()
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._desired: Desired | None = None
        self.blocked = ""
        self._random = Random(os.urandom(16))  # noqa: S311 - spreads load, keeps no secret
        self._peers, self._sockets = self._reset()
        self._report, self._error = HealthReport(), ""
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def _reset(self) -> tuple[Peers, Sockets]:
        self._applied: Desired | None = None
        self._own: tuple[Target, ...] = ()
        self._reopen_at = self._report_at = 0.0
        self._iterations = TokenBucket(ITERATIONS, _ITERATIONS_BURST)
        self._reported = -1
        self._fault, self._overload, self._overload_ends = "", "", float("inf")
        settings = self._settings
        sockets = Sockets(settings.port)
        sockets.watch(self._wakeup)
        return Peers(settings.interval, settings.budget, self._random, time.time), sockets

    # For others.

    def start(self) -> None:
        """Start the thread. It probes once it has a plan."""
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; whether it ended in time."""
        self._stopping = True
        os.eventfd_write(self._wakeup, 1)
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def update(self, desired: Desired) -> None:
        """Take a plan."""
        self._desired = desired
        os.eventfd_write(self._wakeup, 1)

    @property
    def report(self) -> HealthReport:
        """The report for the status; at most half a second old, five with thousands of peers."""
        return self._report

    @property
    def terminated(self) -> int:
        """Connections that ended since the start: their peer failed, left or moved."""
        return self._peers.terminated

    def peers(self) -> Sequence[PeerHealth]:
        """All peers, in any order."""
        with self._lock:
            return tuple(self._peers)

    # The thread.

    def _run(self) -> None:
        while not self._stopping:
            self._beat()
            try:
                self._iterate()
            except Exception as error:  # whatever it is, probing must go on
                self._restart(error)
        self._sockets.close()

    def _restart(self, error: Exception) -> None:
        if repr(error) != self._error:
            self._error = repr(error)
            self._log.error(f"the prober restarts: {error!r}")
        self._report = HealthReport(fault=f"peers are not probed: {error!r}")
        with self._lock:
            self._sockets.close()
            self._peers, self._sockets = self._reset()
        until = time.monotonic() + _RESTART
        while not self._stopping and time.monotonic() < until:
            self._clear_wakeup(self._sockets.wait(until - time.monotonic()))

    def _iterate(self) -> None:
        time.sleep(self._iterations.wait(time.monotonic()))
        self._iterations.take()
        ready = self._sockets.wait(self._timeout(time.monotonic()))
        self._clear_wakeup(ready)
        with self._lock:
            now = time.monotonic()
            self._apply(now)
            self._peers.blocked = self.blocked
            self._receive(ready, now)
            for probe in self._peers.next_probes(now, _nonce):
                self._send(probe, now)
            self._make_report(now)

    def _timeout(self, now: float) -> float:
        waits = [self._peers.wait(now)]
        waits += [self._reopen_at - now] if self._sockets.fault else []
        waits += [self._overload_ends - now] if self._overload else []
        waits += [self._report_at - now] if self._reported != self._peers.revision else []
        return max(0.0, min(_IDLE, *(wait for wait in waits if wait is not None), _IDLE))

    def _clear_wakeup(self, ready: Iterable[tuple[int, int]]) -> None:
        if any(fd == self._wakeup for fd, _events in ready):
            with suppress(BlockingIOError):
                os.eventfd_read(self._wakeup)

    # The plan.

    def _apply(self, now: float) -> None:
        """Have the peers and the sockets of the plan."""
        desired = self._desired
        if desired is None:
            return
        if desired is not self._applied:
            self._own, self._applied, self._reopen_at = own_targets(desired), desired, now
            self._peers.update(desired.nodes, desired.peers, now)
        if now >= self._reopen_at:
            self._sockets.update(self._own)
            self._reopen_at = now + _REOPEN if self._sockets.fault else float("inf")
            self._peers.local = LocalNode(
                {path: own.address for path, own in self._sockets.own.items()},
                desired.pod_mtu,
                desired.overhead,
                self._settings.port,
                self._vxlan_port,
            )

    # Datagrams.

    def _send(self, probe: InFlight, now: float) -> None:
        target, packet = probe.target, probe.packet
        own = self._sockets.own.get(target.path)
        payload = render(packet, target.path.version)
        probe.sent_at = time.monotonic()
        rejection = self._sockets.send(own, target.address, payload) if own else _NO_ADDRESS
        self.counts.sent += 1
        if rejection is not None:
            self._peers.reject(target, packet.nonce, rejection, now)

    def _receive(self, ready: Iterable[tuple[int, int]], now: float) -> None:
        before = self._sockets.dropped
        for item in self._sockets.receive(ready):
            if isinstance(item, DeliveryError):
                self._take_error(item, now)
            elif not self._take_datagram(item, now):
                self.counts.dropped += 1
        self.counts.dropped += self._sockets.dropped - before
        for own in self._sockets.overloaded:
            self._peers.note_overload(own.path, now)
            self._overload_ends = now + _OVERLOAD_SECONDS
            self._overload = self._overload or describe_overload(own.address, self._settings.port)
        if now >= self._overload_ends:
            self._overload, self._overload_ends = "", float("inf")

    def _take_error(self, error: DeliveryError, now: float) -> None:
        # Anybody can make up a report that quotes no more than the headers.
        with suppress(InvalidPacket):
            nonce = parse_header(error.payload).nonce
            self._peers.reject(error.target, nonce, error.rejection, now)

    def _take_datagram(self, datagram: Datagram, now: float) -> bool:
        """Whether a datagram is of a peer's, valid and within the limits."""
        origin = datagram.origin
        # The cheapest check first: most of a flood ends here.
        if datagram.port != self._settings.port or not self._peers.knows(origin):
            return False
        try:
            packet = parse(datagram.payload, origin.path.version)
        except InvalidPacket:
            return False
        if packet.is_answer:
            is_awaited = self._peers.receive_answer(origin, packet, datagram.received, now)
            self.counts.answered += is_awaited
            return is_awaited
        answer = self._peers.receive_probe(origin, packet, now)
        if answer is None:
            return False
        delay = min(int((time.monotonic() - datagram.received) * 1e6), DELAY_MAX)
        payload = render(answer._replace(delay=delay), origin.path.version)
        self._sockets.send(datagram.own, origin.address, payload)
        self.counts.served += 1
        return True

    # The report.

    def _make_report(self, now: float) -> None:
        peers = self._peers
        self._check_fault()
        is_old = self._reported != peers.revision
        is_old |= (
            self._report.dropped != self.counts.dropped and now >= self._report_at + _DROPS_GAP
        )
        if now < self._report_at or not is_old:
            return
        gap = min(max(_REPORT_GAP, _REPORT_GAP_EACH * len(peers)), _REPORT_GAP_MAX)
        self._report_at, self._reported = now + gap, peers.revision
        dropped = self.counts.dropped
        self._outages.update(
            {p.name: f"{p.reason}: {p.detail}" for p in peers.degraded() if p.state is State.FAILED}
        )
        self._report = make_report(peers.counts, peers.degraded(), self._fault, dropped)

    def _check_fault(self) -> None:
        before, fault = self._fault, self._overload
        if self._sockets.fault:
            fault = f"peers are not probed: {self._sockets.fault}"
        if fault == before:
            return
        if fault:
            self._log.error(fault)
        else:
            self._log.info("peers are probed again")
        self._fault, self._reported = fault, -1


def describe_overload(address: str, port: int) -> str:
    """What an overload means, and what to do."""
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return (
        f"the probes are flooded: more datagrams arrive at {where} than podwired reads, so probes "
        "that are lost there judge no node; `tcpdump` shows the sender: stop or filter it"
    )


def _nonce() -> int:
    return int.from_bytes(os.urandom(8))
