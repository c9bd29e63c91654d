"""The routing loop: cluster and host state are received, planned, reconciled and reported.

It runs in one thread, which sleeps until something happens or is due.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from daemon.backoff import Backoff
from daemon.config.reload import AllowedOverlap
from daemon.config.schema import Settings
from daemon.files import explain
from daemon.journal import Journal
from daemon.liveness.watchdog import Watch, unwatched
from daemon.log import Log
from daemon.model import Desired, Refusal, Snapshot, Source
from daemon.probes.prober import Prober
from daemon.routing.capacity import Capacity
from daemon.routing.conflist import ConflistReconciler
from daemon.routing.counters import Counts, Seen
from daemon.routing.diversions import Diversions
from daemon.routing.foreign_filters import ForeignFilters
from daemon.routing.host_state import (
    HostState,
    Paths,
    UnderlayPaths,
    Unplannable,
    affects_plan,
    read_host_state,
)
from daemon.routing.kept_programs import KeptPrograms
from daemon.routing.node_side import Idle, all_idle
from daemon.routing.planner import Planner
from daemon.routing.predecessor import PredecessorRemains
from daemon.routing.reconciler import Reconciler
from daemon.routing.reporter import Refusals, Reporter
from daemon.routing.stale_pods import StalePods
from daemon.routing.takeover import Takeover
from daemon.routing.unwired_pods import UnwiredPods
from daemon.sources import open_source
from daemon.status import NodeStatus, Refused
from kernel.errors import KernelError
from kernel.model import Entry
from kernel.netlink.monitor import RuleChange
from kernel.netlink.socket import close_kept_sockets, keep_sockets_open

TICK = 0.5
"""Seconds between comparisons of what changes without an event: files, and most settings."""
RESYNC = 600.0
"""Seconds after which everything is compared, events or not."""
STOP_SECONDS = 30.0
RESTART_PAUSE, RESTART_PAUSE_MAX = 0.5, 10.0
"""Seconds until the loop restarts after an unexpected error: the first pause, and the longest."""
_CALM = 60.0
_HOST_STATE_GAP = 0.05
Others = Callable[[], Mapping[str, str]]
_NAMED = 8
"""Nodes that left and are named in the log."""


class Loop:
    """One run of the loop: what it knows, and one iteration."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        log: Log,
        publish: Callable[[NodeStatus], None],
        prober: Prober | None,
        counts: Counts,
        config: Path,
        idle: Idle,
        watch: Watch,
        unready: Callable[[], str],
        others: Others,
    ) -> None:
        self._settings, self._journal, self._log, self._publish = settings, journal, log, publish
        self._prober, self._counts = prober, counts
        self._unready, self._others = unready, others
        self._planner = Planner(settings)
        self._overlap = AllowedOverlap(config, settings, log)
        self._reporter = Reporter(journal, log, counts=self._counts)
        self._faults = self._reporter.faults
        with ExitStack() as opened:
            self._source: Source = opened.enter_context(closing(open_source(settings, log, watch)))
            self._kernel = opened.enter_context(closing(Reconciler(settings, self._reporter, idle)))
            self._assemble()
            self._opened = opened.pop_all()

    def _assemble(self) -> None:
        settings, reporter = self._settings, self._reporter
        self._diversions = Diversions(self._kernel.nl, self._kernel.events, reporter)
        self._firewall = ForeignFilters(settings, reporter)
        self._snapshot: Snapshot | None = None
        self._was_lost = False
        self._host: HostState | None = None
        self._underlay = UnderlayPaths()
        self._host_due, self._host_read_at, self._host_gap = True, 0.0, _HOST_STATE_GAP
        self._plan_due = False
        self._desired: Desired | None = None
        self._remains = PredecessorRemains(self._kernel.nl, settings, reporter)
        self._conflist = ConflistReconciler(settings, reporter)
        self._refusals = Refusals(reporter)
        self._stale_pods = StalePods(settings, reporter)
        self._takeover = Takeover(settings, reporter)
        self._programs = KeptPrograms(settings.data_dir, reporter)
        self._unwired_pods = UnwiredPods(settings, reporter)
        self._capacity = Capacity(settings, reporter)
        self._next_tick = 0.0
        self._next_resync = time.monotonic() + RESYNC
        self._wait: float | None = 0.0
        self._faults.set("plan", "nothing was received from the source yet")
        self._adopted: list[Entry] = [*self._kernel.adopt()]

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def iterate(self, wake_up: int) -> None:
        """Sleep until something is due, and do it. wake_up: an eventfd that ends the sleep."""
        self._sleep(wake_up)
        began = time.monotonic()
        self._reporter.error = ""
        self._receive()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._tick(now)
        # What others changed is repaired first: plans are made for an undamaged node.
        self._reconcile()
        if self._refresh(now):
            self._reconcile()
            if self._prober and self._desired:
                self._prober.update(self._desired)
            self._diversions.expect()
        if self._desired and self._host:
            self._diversions.check(self._desired, self._host)
            self._firewall.check(self._desired, self._kernel.attachments.mappings)
            if self._prober:
                self._prober.blocked = self._faults["paths"] or self._firewall.blocked
        status = self._finish()
        # Metrics first: who reads in the status what is wrong finds it there, too.
        seen = Seen(status, self._snapshot, self._desired, self._source.activity)
        self._counts.note_iteration(began, seen)
        self._publish_status(status)

    def _sleep(self, wake_up: int) -> None:
        wait = max(0.0, self._next_tick - time.monotonic())
        waits = [wait] if self._wait is None else [wait, self._wait]
        if self._host_due:
            waits.append(self._host_gap)
        source = self._source.fileno()
        poll = select.poll()  # not select(2): a busy daemon's descriptors may be beyond its reach
        for fd in (self._kernel.events.fileno(), *([] if source is None else [source])):
            poll.register(fd, select.POLLIN)
        _sleep_until_woken(poll, wake_up, min(waits))

    def _receive(self) -> None:
        for event in self._kernel.events.read():
            self._kernel.receive(event, self._desired)
            if isinstance(event.noun, RuleChange):
                self._firewall.receive(event.noun)
            if event.kind == "lost" or (self._host and affects_plan(event, self._host)):
                self._host_due = True
        self._poll()

    def _poll(self) -> None:
        fresh = self._source.poll()
        if fresh is not None:
            self._log_departures(self._snapshot, fresh)
            self._snapshot, self._plan_due = fresh, True
        starting = self._source.fault
        if self._source.activity.is_starting:  # and was so when its fault was read
            self._faults.set("source", starting)  # which is no error yet
            return
        fault, known = self._source.fault, self._snapshot is not None
        self._reporter.report_fault("source", fault if known else "")
        self._reporter.report_fault("cluster", "" if known else fault)
        if self._was_lost and not fault:
            self._log.info("the source is good again")
        self._was_lost = bool(fault)

    def _log_departures(self, old: Snapshot | None, fresh: Snapshot) -> None:
        """Warn about every node that loses its routes: a list that was cut off is valid, too."""
        names = {node.name for node in fresh.nodes}
        left = [node.name for node in old.nodes if node.name not in names] if old else []
        if left:
            more = " ..." if len(left) > _NAMED else ""
            text = f"{len(left)} nodes left the source: {' '.join(left[:_NAMED])}{more}"
            self._log.warning(text, before=len(old.nodes) if old else 0, now=len(names))

    def _tick(self, now: float) -> None:
        self._kernel.tick()
        self._programs.check()
        self._reporter.forget_calm()
        self._journal.write(())
        allowed = self._overlap.poll()
        if allowed is not None:
            self._planner.allow_overlap(allowed)
            self._plan_due = True
        if now >= self._next_resync:
            self._next_resync = now + RESYNC
            self._kernel.resync("found at the regular resync")
            self._stale_pods.resync()
            self._host_due = True

    def _reconcile(self) -> None:
        waits = [self._kernel.reconcile(self._desired) if self._desired else None]
        waits.append(self._kernel.reconcile_attachments(self._desired))
        self._wait = min((wait for wait in waits if wait is not None), default=None)

    def _refresh(self, now: float) -> bool:
        """Make a new plan if there may be one; whether there is."""
        try:
            if self._host_due and now - self._host_read_at >= self._host_gap:
                self._read_host_state(now)
            if not self._plan_due or self._snapshot is None or self._host is None:
                return False
            nodes, me = self._snapshot.nodes, self._settings.node
            if self._remains.remove(self._host, nodes, me):
                self._read_host_state(now)
            paths = self._underlay.read(self._kernel.nl, nodes, me)
        except KernelError as error:
            self._host_due = True
            self._reporter.report_fault("plan", str(error))
            return False
        # Thousands of nodes, or routes that change all the time, must not take all the time.
        self._host_gap = max(_HOST_STATE_GAP, 4 * (time.monotonic() - now))
        self._plan_due = False
        return self._plan(self._snapshot, self._host, paths)

    def _read_host_state(self, now: float) -> None:
        self._host_read_at = now
        host = read_host_state(self._kernel.nl)
        self._host = self._host if host == self._host else host
        self._underlay.expire()
        self._host_due, self._plan_due = False, True

    def _plan(self, snapshot: Snapshot, host: HostState, paths: Paths) -> bool:
        try:
            desired = self._planner.plan(snapshot, host, paths, self._adopted)
        except Unplannable as error:
            self._reporter.report_fault("plan", str(error))
            return False
        self._adopted, self._desired = [], desired
        self._faults.set("plan", "" if desired.pod_cidrs else _explain_no_prefix(desired))
        self._refusals.report(desired.refused, desired.tolerated)
        return True

    def _finish(self) -> NodeStatus:
        """Do what waits for a node that is ready; the status then."""
        self._faults.set("policies", self._unready())
        if self._desired and not self._faults.node:
            if self._conflist.reconcile(self._desired):
                self._takeover.check_conflists()
                self._unwired_pods.check()
            self._stale_pods.check(self._desired.pod_cidrs)
        self._capacity.check(self._desired)
        if self._reporter.error:
            self._faults.note_error(self._reporter.error)
        elif self._faults.are_over and self._kernel.is_settled:
            self._faults.note_end()
        self._faults.set("journal", self._journal.fault)
        self._faults.set("metrics", self._counts.endpoint_fault)
        return self._status()

    def _publish_status(self, status: NodeStatus) -> None:
        try:
            self._publish(status)
        except OSError as error:  # a full disk is no reason to stop; readers see the file's age
            path = self._settings.status_file
            self._reporter.report_failure(explain("the status", path, error, "statusFile"))
            self._faults.note_error(self._reporter.error)

    def _status(self) -> NodeStatus:
        desired, faults = self._desired, self._faults
        wanted, in_sync = self._kernel.entries
        return NodeStatus(
            node=self._settings.node,
            backend=self._settings.backend,
            source=self._settings.source.kind,
            peers=len(desired.peers) if desired else 0,
            wanted=wanted,
            in_sync=in_sync,
            attachments=self._kernel.attachments.total,
            attachments_in_sync=self._kernel.attachments.in_sync,
            mtu=desired.pod_mtu if desired else 0,
            underlay=f"{desired.underlay} by {desired.uplink}" if desired else "",
            prefixes=tuple(map(str, desired.pod_cidrs)) if desired else (),
            refused=_refused(desired.refused) if desired else (),
            tolerated=_refused(desired.tolerated) if desired else (),
            fault=faults.node,
            faults={**faults.others, **self._others()},
            dropped=self._kernel.filter.count(),
            health=self._prober.report if self._prober else None,
            last_error=faults.last_error,
            last_error_time=faults.last_error_time,
            last_error_over=faults.last_error_over,
        )


def _explain_no_prefix(desired: Desired) -> str:
    own = [f"; {r.prefix}: {r.why}" for r in desired.refused if r.node == desired.me.name]
    return f"{desired.me.name} has no pod CIDR that can be used{''.join(own)}"


def _refused(refusals: Sequence[Refusal]) -> tuple[Refused, ...]:
    return tuple(Refused(r.node, str(r.prefix), r.why) for r in refusals)


class Routing:
    """Keeps this node's routes while it is entered, and leaves them in place.

    publish: takes the status whenever it may have changed. config: the file of the settings, for
    what is taken of it later. idle: keeps CNI calls away from attachments. watch: declares what
    the watchdog watches. unready: why else no pod may be attached yet; empty where it may.
    others: what is wrong with parts beside routing.
    prober: probes the peers; None where it is not configured. counts: what was done since the
    start.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        log: Log,
        publish: Callable[[NodeStatus], None],
        config: Path,
        idle: Idle = all_idle,
        watch: Watch = unwatched,
        unready: Callable[[], str] = lambda: "",
        others: Others = dict,
    ) -> None:
        self._settings, self._log, self._publish, self._others = settings, log, publish, others
        health, port = settings.health, settings.vxlan.port
        self.prober = Prober(health, port, log, journal, watch("probes").beat) if health else None
        self.counts, self._beat = Counts(), watch("routing").beat
        own = settings, journal, log, publish, self.prober, self.counts
        self._make_loop = partial(Loop, *own, config, idle, watch, unready, others)
        self._wake_up = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._pauses = Backoff(RESTART_PAUSE, RESTART_PAUSE_MAX, _CALM)
        self._thread = threading.Thread(target=self._run, name="routing", daemon=True)

    def __enter__(self) -> Routing:
        self._thread.start()
        if self.prober:
            self.prober.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        if self.prober:
            self.prober.stop()
        self.wake()
        self._thread.join(STOP_SECONDS)

    def wake(self) -> None:
        """End the loop's sleep, from any thread."""
        os.eventfd_write(self._wake_up, 1)

    def _run(self) -> None:
        keep_sockets_open()
        try:
            while not self._stopping:
                self._run_loop()
        finally:
            close_kept_sockets()

    def _run_loop(self) -> None:
        try:
            with self._make_loop() as loop:
                while not self._stopping:
                    self._beat()
                    loop.iterate(self._wake_up)
        except Exception as error:  # whatever it is, routing must go on
            pause, attempts = self._pauses.next(time.monotonic()), self._pauses.attempts
            times = f" ({attempts} times now)" if attempts > 1 else ""
            self._log.error(f"routing restarts{times}: {error!r}")
            self._log.debug(traceback.format_exc())
            self._publish_failure(error)
            self._pause(pause)

    def _publish_failure(self, error: Exception) -> None:
        text, settings = f"routing fails: {error!r}", self._settings
        kind, faults = settings.source.kind, self._others()
        status = NodeStatus(settings.node, settings.backend, kind, fault=text, faults=faults)
        self.counts.note_restart(status)
        with suppress(OSError):  # why the file cannot be written was logged
            self._publish(replace(status, last_error=text, last_error_time=time.time()))

    def _pause(self, seconds: float) -> None:
        _sleep_until_woken(select.poll(), self._wake_up, seconds)


def _sleep_until_woken(poll: select.poll, wake_up: int, seconds: float) -> None:
    """Wait for one of the poll's descriptors, or for the eventfd, which ends one sleep alone."""
    poll.register(wake_up, select.POLLIN)
    poll.poll(math.ceil(seconds * 1000))
    with suppress(BlockingIOError):
        os.eventfd_read(wake_up)
