"""The requests beside the watch: this node's Node and object, and Nodes of conflicting claims.

Two threads: one follows this node's Node, the other one does jobs.
"""

from __future__ import annotations

import queue
import random
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from daemon.backoff import Backoff
from daemon.log import Log
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.cluster_view import ClusterView, Inbox, Received
from daemon.sources.kubernetes.objects import NODES, NodeRecord, UnusableObject, parse_node_record
from daemon.sources.kubernetes.own_object import PATIENCE, OwnObject
from daemon.sources.kubernetes.retry import PAUSE, PAUSE_MAX, retry_pauses
from daemon.sources.remote import Feed, SourceError
from kernel.model import IPNetwork

DENIED_SECONDS = 300.0
"""Between two reads of Nodes that denied a claim."""
CALM = 600.0
"""Seconds without an attempt after which the next one is made at once. Also between writes of an
object that others keep changing."""
LOOKUPS_PER_SECOND = 2000
"""Of Nodes, by all daemons of a cluster together."""
_LOOKUP_PAUSE_MIN = 0.05
_STOP_SECONDS = 5.0


def lookup_pause(nodes: int) -> float:
    """Seconds between two lookups of one of so many daemons, on average."""
    return max(_LOOKUP_PAUSE_MIN, nodes / LOOKUPS_PER_SECOND)


@dataclass(slots=True)
class _Job:
    """Something to do from time to time.

    run: does it; seconds until it is due again, None = as the back-off says.
    is_wanted: whether there is anything to do. due: when it may be done, by the monotonic clock.
    """

    run: Callable[[Api], float | None]
    is_wanted: Callable[[], object] = lambda: True
    due: float = 0.0
    backoff: Backoff = field(default_factory=partial(retry_pauses, CALM))

    def wait(self, now: float) -> float:
        """Seconds until it is to be done, as far as is known now."""
        return max(0.0, self.due - now) if self.is_wanted() else PAUSE_MAX

    def attempt(self, api: Api) -> None:
        """Do it and set when it is due next. Raises SourceError."""
        pause = None
        try:
            pause = self.run(api)
        finally:
            now = time.monotonic()
            if pause is None:
                self.due = now + self.backoff.next(now)
            else:
                self.backoff.reset()
                self.due = now + pause * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


class Worker:
    """Both threads, from `start` to `stop`. inbox: wakes the one that does jobs."""

    def __init__(
        self,
        own: OwnObject,
        view: ClusterView,
        ranges: tuple[IPNetwork, ...],
        log: Log,
        feed: Feed,
        inbox: Inbox,
    ) -> None:
        self._own, self._view, self._ranges = own, view, ranges
        self._log, self._feed, self._trouble = log, feed, feed.degraded
        self._inbox = inbox
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._node_backoff = retry_pauses(2 * PAUSE_MAX)
        self._jobs = (
            _Job(self._publish, lambda: own.must_publish),
            _Job(self._look_up, lambda: view.waiting),
            _Job(self._reopen_denied, due=time.monotonic() + DENIED_SECONDS),
        )

    def start(self, api: Api) -> None:
        """Start, over those connections."""
        self._stop = threading.Event()
        for name, step, patience in (
            ("api-jobs", self._do_jobs, DENIED_SECONDS + PATIENCE),
            ("api-node", self._follow_node, PATIENCE),
        ):
            arguments = name, step, patience, api, self._stop
            thread = threading.Thread(target=self._repeat, args=arguments, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End; watches must have been interrupted.

        A thread that hangs in a request ends with that request's time limit.
        """
        self._stop.set()
        self.wake()
        while self._threads:
            self._threads.pop().join(_STOP_SECONDS)

    def wake(self) -> None:
        """There may be something to do."""
        self._inbox.put(None)

    def _repeat(
        self,
        name: str,
        step: Callable[[Api, threading.Event], None],
        patience: float,
        api: Api,
        stop: threading.Event,
    ) -> None:
        with self._feed.watched(name, patience):
            while not stop.is_set():
                self._feed.progress()
                try:
                    step(api, stop)
                    self._trouble(name, "")
                except Exception as error:  # whatever it is, the daemon must go on
                    if stop.is_set():
                        return  # its connections were closed
                    self._trouble(name, f"the source fails: {error!r}")
                    self._log.debug(traceback.format_exc())
                    stop.wait(PAUSE_MAX)

    def _follow_node(self, api: Api, stop: threading.Event) -> None:
        """Read this node's Node, and watch it until that ends."""
        try:
            position = self._own.read_node(api)
            self.wake()
            self._own.watch_node(api, position, self.wake)
        except SourceError as error:
            self._log.debug(f"{error}")  # that the API is away, the other watch reports
        stop.wait(self._node_backoff.next(time.monotonic()))

    def _do_jobs(self, api: Api, stop: threading.Event) -> None:
        """Do what is due, and wait until something is."""
        for job in self._jobs:
            if stop.is_set() or job.wait(time.monotonic()) > 0 or not job.is_wanted():
                continue
            try:
                job.attempt(api)
            except SourceError as error:
                self._log.debug(f"{error}")
        if not self._view.waiting:
            self._trouble("lookup", "")
        self._receive(min(job.wait(time.monotonic()) for job in self._jobs))

    def _receive(self, seconds: float) -> None:
        """Take what arrives, for so long at most where nothing does."""
        with suppress(queue.Empty):
            self._take(self._inbox.get(timeout=seconds))
            while True:
                self._take(self._inbox.get_nowait())

    def _take(self, received: Received | None) -> None:
        if received:
            self._own.receive(received.thing, is_current=received.is_current)

    # -- the jobs

    def _publish(self, api: Api) -> float | None:
        """Soon again for another change of the Node; ever later against another client."""
        return PAUSE if self._own.publish(api) else None

    def _look_up(self, api: Api) -> float | None:
        waiting = self._view.waiting
        if not waiting:
            return 0.0  # the watch has withdrawn it meanwhile
        claim = waiting[0]
        rivals: dict[str, NodeRecord | None] = {}
        try:
            record = self._read_record(api, claim.name)
            while name := self._view.next_rival(claim, record, rivals):
                rivals[name] = self._read_record(api, name)
        except ApiError as error:
            self._trouble("lookup", f"{claim.name} has a conflicting claim, undecided: {error}")
            raise
        self._trouble("lookup", "")
        self._view.settle(claim, record, rivals)
        return lookup_pause(self._view.size) * (1 + len(rivals))

    def _read_record(self, api: Api, name: str) -> NodeRecord | None:
        thing, nothing = api.find(f"{NODES}/{name}"), NodeRecord(name, "", (), ())
        if thing is None:
            return None
        try:
            record = parse_node_record(thing, self._ranges)
        except UnusableObject:
            return nothing
        return record if record.name == name else nothing

    def _reopen_denied(self, api: Api) -> float:
        self._view.reopen_denied()
        return DENIED_SECONDS
