"""One life of the routing loop: what it knows of source and kernel, and one turn of it."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable

from daemon.config.schema import Settings
from daemon.filefaults import explain
from daemon.journal import Journal
from daemon.log import Log
from daemon.model import Desired, Refusal, Snapshot, Source
from daemon.probes.prober import Health
from daemon.routing.conflistkeeper import ConflistKeeper
from daemon.routing.counters import Counts, Seen
from daemon.routing.host_state import HostState, Unplannable, affects_plan, read_host_state
from daemon.routing.lasterror import LastError
from daemon.routing.planner import Planner
from daemon.routing.reconciler import Reconciler
from daemon.routing.refusals import Refusals, Tolerated
from daemon.routing.reporter import Teller
from daemon.routing.stale_pods import Stranded
from daemon.sources import open_source
from daemon.status import NodeStatus, Refused
from kernel.errors import KernelError
from kernel.model import Entry

TICK = 0.5
"""Seconds between looks at what tells nobody: files, and settings that change silently."""
RESYNC = 600.0
"""Seconds after which everything is compared, events or not."""
_FACTS_GAP = 0.05
_NAMED = 8
"""So many nodes that left are named."""


class Loop:
    """One life of the loop: what it knows, and one turn of it."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        log: Log,
        publish: Callable[[NodeStatus], None],
        health: Health | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._settings, self._journal, self._log, self._publish = settings, journal, log, publish
        self._health, self._counts = health, counts or Counts()
        self._source: Source = open_source(settings, log)
        self._planner = Planner(settings)
        self._teller = Teller(journal, log, counts=self._counts)
        self._kernel = Reconciler(settings, self._teller)
        self._snapshot: Snapshot | None = None
        self._facts: HostState | None = None
        self._facts_due, self._facts_at = True, 0.0
        self._plan_due = False
        self._desired: Desired | None = None
        self._fault = "nothing was heard from the source yet"
        self._conflist = ConflistKeeper(settings, self._teller)
        self._last = LastError(log)
        self._source_fault = ""
        self._refusals = Refusals(self._teller)
        self._stranded = Stranded(settings, self._teller)
        self._tolerated = Tolerated(self._teller)
        self._next_tick = 0.0
        self._next_resync = time.monotonic() + RESYNC
        self._wait: float | None = 0.0
        self._adopted: list[Entry] = []
        try:
            self._adopted += self._kernel.adopt()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._kernel.close()
        self._source.close()

    def turn(self, bell: int) -> None:
        """Sleep until something is due, and do it."""
        self._sleep(bell)
        began = time.monotonic()
        self._teller.error = ""
        self._hear()
        now = time.monotonic()
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self._tick(now)
        # What others did to what there is comes first: plans are made for an undamaged node.
        self._wait = self._kernel.work()
        if self._refresh(now):
            self._wait = self._kernel.work()
            if self._health and self._desired:
                self._health.aim(self._desired)
        status = self._finish()
        news = self._source.news
        self._counts.turn(began, Seen(status, self._snapshot, self._desired, news))

    def _sleep(self, bell: int) -> None:
        wait = max(0.0, self._next_tick - time.monotonic())
        waits = [wait] if self._wait is None else [wait, self._wait]
        if self._facts_due:
            waits.append(_FACTS_GAP)
        source = self._source.fileno()
        poll = select.poll()  # not select(2): a busy daemon's descriptors may be beyond its reach
        for fd in (bell, self._kernel.events.fileno(), *([] if source is None else [source])):
            poll.register(fd, select.POLLIN)
        poll.poll(math.ceil(min(waits) * 1000))

    def _hear(self) -> None:
        for event in self._kernel.events.read():
            self._kernel.note(event)
            if event.kind == "lost" or (self._facts and affects_plan(event, self._facts)):
                self._facts_due = True
        self._poll()

    def _poll(self) -> None:
        fresh = self._source.poll()
        if fresh is not None:
            self._tell_left(self._snapshot, fresh)
            self._snapshot, self._plan_due = fresh, True
        if self._source.fault != self._source_fault:
            self._source_fault = self._source.fault
            if self._source_fault:
                self._last.tell(f"the last good state stays in use: {self._source_fault}")
            else:
                self._log.info("the source is good again")

    def _tell_left(self, old: Snapshot | None, fresh: Snapshot) -> None:
        """Say loudly who lost its routes: a list that was cut off is a right list, too."""
        names = {node.name for node in fresh.nodes}
        left = [node.name for node in old.nodes if node.name not in names] if old else []
        if left:
            more = " ..." if len(left) > _NAMED else ""
            text = f"{len(left)} nodes are in the source no more: {' '.join(left[:_NAMED])}{more}"
            self._log.warning(text, before=len(old.nodes) if old else 0, now=len(names))

    def _tick(self, now: float) -> None:
        self._kernel.tick()
        if now >= self._next_resync:
            self._next_resync = now + RESYNC
            self._kernel.look_at_everything("found at the regular look")
            self._stranded.look_soon()
            self._facts_due = True

    def _refresh(self, now: float) -> bool:
        """Make a new plan if there may be one; whether there is."""
        if self._facts_due and now - self._facts_at >= _FACTS_GAP:
            self._facts_at = now
            self._read_facts()
        if not self._plan_due or self._snapshot is None or self._facts is None:
            return False
        self._plan_due = False
        return self._plan(self._snapshot, self._facts)

    def _read_facts(self) -> None:
        try:
            facts = read_host_state(self._kernel.nl)
        except KernelError as error:
            self._last.tell(str(error))
            return
        self._facts_due = False
        if facts != self._facts:
            self._facts, self._plan_due = facts, True

    def _plan(self, snapshot: Snapshot, facts: HostState) -> bool:
        try:
            desired = self._planner.plan(snapshot, facts, self._adopted)
        except Unplannable as error:
            if str(error) != self._fault:
                self._last.tell(str(error))
            self._fault = str(error)
            return False
        self._adopted, self._fault, self._desired = [], "", desired
        self._refusals.tell(desired.refused)
        self._tolerated.tell(desired.tolerated)
        self._kernel.aim(desired)
        return True

    def _finish(self) -> NodeStatus:
        """Say how things are, to whoever wants to know."""
        fault = self._fault or self._kernel.device.fault or self._no_prefix()
        if self._desired and not fault:
            if text := self._conflist.keep(self._desired):
                self._last.tell(text)
            self._stranded.look(self._desired.pod_cidrs)
        self._last.judge(self._teller.error, over=self._is_well(fault))
        status = self._status(fault)
        try:
            self._publish(status)
        except OSError as error:  # a full disk is no reason to stop; the file's age tells
            path = self._settings.status_file
            self._teller.fail(explain("the status", path, error, "statusFile"))
            self._last.note(self._teller.error)
        return status

    def _is_well(self, fault: str) -> bool:
        faults = fault, self._source_fault, self._conflist.fault, self._journal.fault
        return not any(faults) and self._kernel.is_settled

    def _no_prefix(self) -> str:
        if self._desired is None or self._desired.pod_cidrs:
            return ""
        return f"{self._settings.node} has no pod CIDR that can be used"

    def _status(self, fault: str) -> NodeStatus:
        desired, mirror = self._desired, self._kernel.mirror
        return NodeStatus(
            node=self._settings.node,
            backend=self._settings.backend,
            source=self._settings.source.kind,
            peers=len(desired.peers) if desired else 0,
            wanted=len(mirror.want),
            in_sync=len(mirror.want) - mirror.out_of_sync(),
            mtu=desired.pod_mtu if desired else 0,
            prefixes=tuple(map(str, desired.pod_cidrs)) if desired else (),
            refused=tuple(_refused(r) for r in desired.refused) if desired else (),
            tolerated=tuple(_refused(r) for r in desired.tolerated) if desired else (),
            fault=fault,
            stranded=self._stranded.told,
            source_fault=self._source_fault,
            conflist_fault=self._conflist.fault,
            journal_fault=self._journal.fault,
            metrics_fault=self._counts.endpoint_fault,
            health=self._health.report if self._health else None,
            last_error=self._last.text,
            last_error_time=self._last.time,
            last_error_over=self._last.over,
        )


def _refused(refusal: Refusal) -> Refused:
    return Refused(refusal.node, str(refusal.prefix), refusal.why)
