"""`podwired run`'s routing half: source, plan, kernel, in one thread that sleeps until news.

It wakes for the source, for kernel events, and twice a second for what tells nobody: files, and
settings that change silently.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from daemon.cluster import Snapshot, Source
from daemon.conflist import ForeignConflist, keep_conflist, render_conflist
from daemon.desired import Desired, Refusal, Unplannable
from daemon.facts import Facts
from daemon.filefaults import explain
from daemon.journal import Action, Journal, Record
from daemon.log import Log
from daemon.planner import Planner
from daemon.reading import matters, read_facts
from daemon.reconcile import Reconciler
from daemon.refusals import Refusals
from daemon.restarts import Restarts
from daemon.settings import Settings
from daemon.sources.static import StaticSource
from daemon.status import NodeStatus, Refused
from daemon.stranded import Stranded
from daemon.teller import Teller
from kernel.entries import Entry
from kernel.errors import KernelError
from kernel.netlink import close_kept_sockets, keep_sockets_open

TICK = 0.5
"""Seconds between looks at what tells nobody."""
RESYNC = 600.0
"""Seconds after which everything is compared, events or not."""
TOLD_AGAIN = 60.0
"""Seconds after which what is in the way again is told again."""
_FACTS_GAP = 0.05
STOP_SECONDS = 30.0
_NAMED = 8
"""So many nodes that left are named."""


class Routing:
    """Keeps this node's routes from `start` to `stop`, which leaves them in place.

    publish: takes the status whenever it may have changed.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        log: Log,
        publish: Callable[[NodeStatus], None],
    ) -> None:
        self._settings, self._journal, self._log = settings, journal, log
        self._publish = publish
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="routing", daemon=True)

    def __enter__(self) -> Routing:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> bool:
        """End the thread; whether it did in time."""
        self._stopping = True
        os.eventfd_write(self._bell, 1)
        self._thread.join(STOP_SECONDS)
        return not self._thread.is_alive()

    def _run(self) -> None:
        keep_sockets_open()
        try:
            self._go_on()
        finally:
            close_kept_sockets()

    def _go_on(self) -> None:
        restarts = Restarts(self._log)
        while not self._stopping:
            try:
                with _Loop(self._settings, self._journal, self._log, self._publish) as loop:
                    while not self._stopping:
                        loop.turn(self._bell)
            except Exception as error:  # whatever it is, routing must go on
                pause = restarts.note(error)
                self._log.debug(traceback.format_exc())
                self._publish_failure(error)
                self._rest(pause)

    def _publish_failure(self, error: Exception) -> None:
        text, settings = f"routing fails: {error!r}", self._settings
        status = NodeStatus(settings.node, settings.backend, settings.source.kind, fault=text)
        with suppress(OSError):  # what is in the way of the file was told
            self._publish(replace(status, last_error=text, last_error_time=time.time()))

    def _rest(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        poll.poll(math.ceil(seconds * 1000))


class _Loop:
    """One life of the loop: what it knows, and one turn of it."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        log: Log,
        publish: Callable[[NodeStatus], None],
    ) -> None:
        self._settings, self._journal, self._log, self._publish = settings, journal, log, publish
        self._source: Source = StaticSource(settings.source.path)
        self._planner = Planner(settings)
        self._teller = Teller(journal, log)
        self._kernel = Reconciler(settings, self._teller)
        self._snapshot: Snapshot | None = None
        self._facts: Facts | None = None
        self._facts_due, self._facts_at = True, 0.0
        self._plan_due = False
        self._desired: Desired | None = None
        self._fault = "nothing was heard from the source yet"
        self._conflist_fault = ""
        self._source_fault = ""
        self._last_error, self._last_error_time, self._last_error_over = "", 0.0, 0.0
        self._refusals = Refusals(self._teller)
        self._stranded = Stranded(settings, self._teller)
        self._tolerated: dict[Refusal, float] = {}
        self._next_tick = 0.0
        self._next_resync = time.monotonic() + RESYNC
        self._wait: float | None = 0.0
        self._adopted: list[Entry] = []
        try:
            self._adopted += self._kernel.adopt()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> _Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._kernel.close()
        self._source.close()

    def turn(self, bell: int) -> None:
        """Sleep until something is due, and do it."""
        self._sleep(bell)
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
        self._finish()

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
            if event.kind == "lost" or (self._facts and matters(event, self._facts)):
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
                self._error(f"the last good state stays in use: {self._source_fault}")
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
            facts = read_facts(self._kernel.nl)
        except KernelError as error:
            self._error(str(error))
            return
        self._facts_due = False
        if facts != self._facts:
            self._facts, self._plan_due = facts, True

    def _plan(self, snapshot: Snapshot, facts: Facts) -> bool:
        try:
            desired = self._planner.plan(snapshot, facts, self._adopted)
        except Unplannable as error:
            if str(error) != self._fault:
                self._error(str(error))
            self._fault = str(error)
            return False
        self._adopted, self._fault, self._desired = [], "", desired
        self._tell_refused(desired)
        self._kernel.aim(desired)
        return True

    def _tell_refused(self, desired: Desired) -> None:
        self._refusals.tell(desired.refused)
        self._tell_tolerated(desired)

    def _tell_tolerated(self, desired: Desired) -> None:
        # A quarrel about one route must not fill the journal: it comes and goes all the time.
        now, known = time.monotonic(), self._tolerated
        left = {t: min(until, now + TOLD_AGAIN) for t, until in known.items() if until > now}
        fresh = [t for t in desired.tolerated if t not in left]
        for tolerated in fresh[:_NAMED]:
            name = f"node {tolerated.node} {tolerated.prefix}"
            cause = f"{tolerated.why}; kept, for it was in use before"
            self._teller.record([Record(time.time(), "found", name, cause)])
            self._log.warning(f"found {name}: {cause}")
        if len(fresh) > _NAMED:
            self._log.warning(f"{len(fresh) - _NAMED} more prefixes overlap networks of this node")
        self._tolerated = left | dict.fromkeys(desired.tolerated, math.inf)

    def _error(self, text: str) -> None:
        self._note_error(text)
        self._log.error(text)

    def _note_error(self, text: str) -> None:
        self._last_error, self._last_error_time, self._last_error_over = text, time.time(), 0.0

    def _finish(self) -> None:
        """Say how things are, to whoever wants to know."""
        fault = self._fault or self._kernel.device.fault or self._no_prefix()
        if self._desired and not fault:
            self._keep_conflist(self._desired)
            self._stranded.look(self._desired.pod_cidrs)
        self._judge(fault)
        try:
            self._publish(self._status(fault))
        except OSError as error:  # a full disk is no reason to stop; the file's age tells
            path = self._settings.status_file
            self._teller.fail(explain("the status", path, error, "statusFile"))
            self._note_error(self._teller.error)

    def _judge(self, fault: str) -> None:
        """Note what went wrong in this turn, or that what did is over."""
        faults = fault, self._source_fault, self._conflist_fault, self._journal.fault
        if self._teller.error:
            self._note_error(self._teller.error)
        elif self._last_error and not any(faults) and self._kernel.is_settled:
            self._last_error_over = self._last_error_over or time.time()

    def _no_prefix(self) -> str:
        if self._desired is None or self._desired.pod_cidrs:
            return ""
        return f"{self._settings.node} has no pod CIDR that can be used"

    def _keep_conflist(self, desired: Desired) -> None:
        wanted = self._settings.conflist
        if wanted is None:
            return
        content = render_conflist(
            wanted, desired.pod_cidrs, desired.pod_mtu, self._settings.data_dir
        )
        try:
            kept = keep_conflist(wanted.path, content)
        except (ForeignConflist, OSError) as error:
            text = str(error)
            if isinstance(error, OSError):
                text = explain("the CNI configuration", wanted.path, error, "conflist.path")
            if text != self._conflist_fault:
                self._error(text)
            self._conflist_fault = text
            return
        self._conflist_fault = ""
        if kept != "same":
            action: Action = "added" if kept == "new" else "changed"
            after = f"{' '.join(map(str, desired.pod_cidrs))} mtu {desired.pod_mtu}"
            name = f"file {wanted.path}"
            self._teller.write(action, name, "this node is ready", after=after)

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
            conflist_fault=self._conflist_fault,
            journal_fault=self._journal.fault,
            last_error=self._last_error,
            last_error_time=self._last_error_time,
            last_error_over=self._last_error_over,
        )


def _refused(refusal: Refusal) -> Refused:
    return Refused(refusal.node, str(refusal.prefix), refusal.why)
