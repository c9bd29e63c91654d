"""Probes between this node's daemon and all others', in a thread of their own.

It sleeps until something comes or is due, without a timer for each peer. While much comes it looks
a few times a second alone, and reads so many datagrams then, whatever strangers send: kernels stamp
what comes with its time, so round trips are measured right all the same. Most of what strangers
send the kernel keeps away; where more comes than is read, what is lost judges nobody.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random

from daemon.config.schema import HealthSettings
from daemon.log import Log
from daemon.model import Desired
from daemon.probes.budget import Budget
from daemon.probes.diagnosis import Place
from daemon.probes.exchange import Exchange, Tally
from daemon.probes.peers import Change, Peers
from daemon.probes.protocol import Path
from daemon.probes.report import HealthReport, make_report
from daemon.probes.sieve import foreign_bits
from daemon.probes.sockets import Outlets
from daemon.probes.states import PeerHealth, State
from daemon.probes.targets import Target, own_targets

__all__ = ["Health", "Tally"]

STOP_SECONDS = 10.0
_OPEN_AGAIN = 5.0
"""Seconds until a socket that could not be opened is tried again."""
_TURNS, _TURNS_MOST = 2.0, 20.0
"""So often a second the thread wakes up, and so often without a rest: waking up is what costs."""
_LONG = 3600.0
_TELL_GAP, _TELL_GAP_MAX, _TELL_GAP_EACH = 0.5, 5.0, 0.001
"""Seconds between reports at least and at most, and for each peer."""
_PAUSE = 5.0
"""Seconds until probing begins anew after an error that nobody foresaw."""
_NAMED = 3
"""So many peers that fail at once are in the log by name."""


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
        self._peers, self._outlets, self._exchange = self._fresh()
        self._report, self._error = HealthReport(), ""
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def _fresh(self) -> tuple[Peers, Outlets, Exchange]:
        self._taken: Desired | None = None
        self._own: tuple[Target, ...] = ()
        self._open_again = self._tell_at = 0.0
        self._turns = Budget(_TURNS, _TURNS_MOST)
        self._told, self._changes = -1, list[Change]()
        self._flood = ""
        settings = self._settings
        peers = Peers(settings.interval, settings.budget, self._random, time.time)
        outlets = Outlets(settings.port)
        outlets.listen(self._bell)
        return peers, outlets, Exchange(peers, outlets, self.tally, settings.port)

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
        """What the status says; half a second old at most, five with thousands of peers."""
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
            self._peers, self._outlets, self._exchange = self._fresh()
        until = time.monotonic() + _PAUSE
        while not self._stopping and time.monotonic() < until:
            self._hush(self._outlets.wait(until - time.monotonic()))

    def _turn(self) -> None:
        time.sleep(self._turns.wait(time.monotonic()))
        self._turns.spend(1)
        ready = self._outlets.wait(self._timeout(time.monotonic()))
        self._hush(ready)
        with self._lock:
            now = time.monotonic()
            self._prepare(now)
            self._exchange.read(ready, now)
            for probe in self._peers.take(now, _nonce):
                self._exchange.send(probe, now)
            self._tell(now)

    def _timeout(self, now: float) -> float:
        waits = [self._peers.wait(now)]
        waits += [self._open_again - now] if self._outlets.fault else []
        waits += [self._exchange.flood_ends - now] if self._exchange.flood else []
        waits += [self._tell_at - now] if self._told != self._peers.news else []
        return max(0.0, min((wait for wait in waits if wait is not None), default=_LONG))

    def _hush(self, ready: Iterable[tuple[int, int]]) -> None:
        if any(fd == self._bell for fd, _events in ready):
            with suppress(BlockingIOError):
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
            addresses = self._peers.addresses()
            self._outlets.sift({p: foreign_bits(p.version, addresses[p]) for p in Path})
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
            {path: outlet.own.address for path, outlet in self._outlets.by_path.items()},
            desired.pod_mtu,
            desired.overhead,
            self._settings.port,
            self._vxlan_port,
        )

    # What it says.

    def _tell(self, now: float) -> None:
        self._changes += self._peers.changes
        self._peers.changes.clear()
        self._note_flood()
        if now < self._tell_at or self._told == self._peers.news:
            return
        gap = min(max(_TELL_GAP, _TELL_GAP_EACH * len(self._peers)), _TELL_GAP_MAX)
        self._tell_at, self._told = now + gap, self._peers.news
        peers = self._peers
        self._report = make_report(
            peers.counts, peers.unwell(), self._outlets.fault, self._exchange.flood
        )
        changes, self._changes = self._changes, []
        self._log_failed([c.health for c in changes if c.health.state is State.FAILED])
        self._log_well([c.health.name for c in changes if c.health.state is State.ESTABLISHED])

    def _note_flood(self) -> None:
        before, self._flood = self._flood, self._exchange.flood
        if self._flood == before:
            return
        self._told = -1
        if not before:
            self._log.warning(self._flood)
        elif not self._flood:
            self._log.info("probes are flooded no more")

    def _log_failed(self, failed: Sequence[PeerHealth]) -> None:
        for health in failed[:_NAMED]:
            self._log.warning(f"{health.name} is not reached ({health.reason}): {health.detail}")
        if len(failed) > _NAMED:
            self._log.warning(
                f"{len(failed) - _NAMED} more nodes are not reached: podwirectl status"
            )

    def _log_well(self, names: Sequence[str]) -> None:
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            self._log.info(f"reached again: {' '.join(names[:_NAMED])}{more}")


def _nonce() -> int:
    return int.from_bytes(os.urandom(8))
