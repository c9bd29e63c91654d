"""The etcd source: leases this node's subnets, and follows all the others."""

from __future__ import annotations

import itertools
import math
import random
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from daemon.config import LEASE
from daemon.config.schema import EtcdSettings
from daemon.log import Log
from daemon.sources.etcd.choice import NoSubnet
from daemon.sources.etcd.cluster_view import Picture
from daemon.sources.etcd.credentials import credentials_of
from daemon.sources.etcd.elders import GRACE, Elders
from daemon.sources.etcd.gateway import Gateway
from daemon.sources.etcd.keys import Keys
from daemon.sources.etcd.lease import LeaseLost, Registration
from daemon.sources.etcd.memory import Memory
from daemon.sources.etcd.pace import Pace
from daemon.sources.etcd.reading import read_all
from daemon.sources.etcd.transaction import Header
from daemon.sources.etcd.values import Malformed
from daemon.sources.etcd.watcher import Answer, Change, Compacted, Watcher, renew_seconds
from daemon.sources.remote import Feed, SourceError

_TOLD_MAX = 8
"""So many refused keys are named at a time."""
_RACE_SECONDS, _RACE_SECONDS_MAX = 0.2, 10.0
_RACES_TOLD = 8
_LEAVE_TRIES = 5
_SPREAD_PER_NODE, _SPREAD_MAX = 0.006, 30.0
"""Seconds over which daemons read anew what they know: 5,000 of them over half a minute."""


class EtcdClient:
    """What `daemon.sources.remote.RemoteSource` listens to etcd with."""

    def __init__(self, settings: EtcdSettings, *, node: str, data_dir: Path, log: Log) -> None:
        self._settings, self._log = settings, log
        self._keys = Keys(settings.prefix)
        self._picture = Picture(self._keys, settings.cluster_cidrs, node)
        memory = Memory(data_dir / LEASE, f"etcd {settings.prefix}", node, log)
        self._gateway = Gateway(
            settings.endpoints,
            credentials_of(settings),
            log,
            first=zlib.crc32(node.encode()),
            received=self._count,
        )
        self._registration = Registration(self._gateway, self._keys, settings, node, memory, log)
        self._feed: Feed | None = None
        self._watcher: Watcher | None = None
        self._at: Header | None = None
        self._missed = False
        self._newest: Header | None = None
        self._elders = Elders()
        self._kept_until = 0
        self._pace = Pace(settings.lease_seconds / 3)
        self._told: dict[str, str] = {}

    @property
    def identity(self) -> str:
        """The keys of which etcd."""
        return f"etcd {self._settings.prefix} at {' '.join(sorted(self._settings.endpoints))}"

    def check(self) -> None:
        """Whether the files can be read. Raises SourceError."""
        credentials_of(self._settings).check()

    def follow(self, feed: Feed) -> None:
        """Hold this node's subnets, and tell of all nodes, until the feed stops."""
        if self._feed is None:
            self._recall(feed)
        self._feed = feed
        try:
            while not feed.stopping:
                self._arrive(feed)
                self._listen(feed)
        except Malformed as error:
            raise SourceError(f"{self._gateway.endpoint}: {error}") from error

    def interrupt(self) -> None:
        """End `follow`, which waits in another thread."""
        if self._watcher is not None:
            self._watcher.interrupt()
        self._gateway.close()

    def leave(self) -> Sequence[str]:
        """Give back what this node holds; that, in words. Raises SourceError."""
        try:
            for _ in range(_LEAVE_TRIES):
                _, pairs = read_all(self._gateway, self._keys)
                self._picture.redraw(pairs)
                told = self._registration.withdraw(self._picture)
                if told is not None:
                    return told
            raise SourceError("somebody keeps writing to this node's keys: nothing was given back")
        except Malformed as error:
            raise SourceError(f"{self._gateway.endpoint}: {error}") from error
        finally:
            self._gateway.close()

    def _recall(self, feed: Feed) -> None:
        """Begin where an earlier daemon ended."""
        if feed.known is None:
            return
        cluster, revision, end = f"{feed.known.position}::".split(":")[:3]
        if cluster and revision.isdecimal():
            self._picture.recall(feed.known.nodes)
            self._at = self._newest = Header(cluster, int(revision))
        if end.isdecimal():
            # Some of them etcd did not know: only what it has now says which.
            self._missed, self._kept_until = True, int(end)

    def _arrive(self, feed: Feed) -> None:
        """Hold what this node is to hold, and know the cluster as of some revision."""
        if self._registration.give_up_former():
            self._at = None
        at = self._at
        if at is None or not self._goes_on(at):
            if at is not None:
                # Many daemons miss the same events, and what they know is good for a while.
                feed.wait(self._spread())
            self._at = None
            self._insist(feed)
        if self._at is not None:
            self._publish(feed)

    def _insist(self, feed: Feed) -> None:
        """Begin, again and again where others are faster; told where that does not end."""
        for attempt in itertools.count(1):
            if feed.stopping or self._begin(feed):
                return
            if attempt >= _RACES_TOLD:
                feed.lost(f"{attempt} times somebody wrote to etcd what this node was to write")
            most = min(_RACE_SECONDS_MAX, _RACE_SECONDS * 2 ** min(attempt - 1, 16))
            feed.wait(random.uniform(0, most))  # noqa: S311 - no secret

    def _goes_on(self, at: Header) -> bool:
        """Hold on to what this node has; whether events can tell all that happened to the rest."""
        header = self._registration.refresh(self._picture)
        try:
            holds = self._registration.claim(self._picture)
        except NoSubnet:
            holds = False
        # A watch of what is to come in another history would wait for ever.
        lost = self._missed or self._registration.robbed or not header.follows(at)
        return holds and not lost

    def _spread(self) -> float:
        """Seconds until it is this daemon's turn to read everything."""
        most = min(_SPREAD_MAX, _SPREAD_PER_NODE * len(self._picture.nodes))
        return random.uniform(0, most)  # noqa: S311 - no secret

    def _begin(self, feed: Feed) -> bool:
        """Read all there is, and take this node's part; False where another was faster."""
        header, pairs = read_all(self._gateway, self._keys)
        self._look_back(header)
        self._picture.redraw(pairs)
        try:
            if not self._registration.claim(self._picture):
                return False
        except NoSubnet:
            # It has no pods that others could reach; the others it reaches all the same.
            self._registration.node = None
            self._publish(feed)
            raise
        self._at, self._missed = header, False
        return True

    def _look_back(self, header: Header) -> None:
        """Keep the nodes of before where this etcd is none that could say that they left."""
        newest, self._newest = self._newest, header
        end, self._kept_until = self._kept_until, 0
        if end:
            self._elders.keep(self._picture.nodes, end - time.time())
        robbed, self._registration.robbed = self._registration.robbed, False
        if not robbed and (newest is None or header.follows(newest)):
            return
        count = self._elders.keep(self._picture.nodes)
        self._log.warning(
            "etcd is another one than before, or in an earlier state, or somebody ended the lease:"
            f" nodes that are missing stay for {GRACE:.0f} s at most",
            nodes=count,
        )

    def _listen(self, feed: Feed) -> None:
        """Take events until this node's keys are touched, or events are missing."""
        at = self._at
        if at is None:
            return
        renew = renew_seconds(self._settings.lease_seconds)
        with Watcher(self._gateway, self._keys, self._registration, feed, renew) as watcher:
            watcher.limit, self._watcher = self._elders.left, watcher
            if feed.stopping:
                return
            try:
                for answer in watcher.answers(at.revision):
                    if not self._take(feed, at.cluster, answer):
                        break
            except LeaseLost:
                return
            except Compacted:
                self._missed = True

    def _take(self, feed: Feed, cluster: str, answer: Answer) -> bool:
        """Take what changed; whether this node's keys are still its own."""
        if answer.revision:
            self._at = self._newest = Header(cluster, answer.revision)
        for change in answer.changes:
            if change.deleted:
                self._picture.delete(change.pair.key)
            else:
                self._picture.put(change.pair)
        if answer.changes:
            self._publish(feed)
        elif answer.revision:
            feed.mark(self._position())
        touched = [c for c in answer.changes if self._is_touched(c)]
        if not touched:
            return True
        names = " ".join(c.pair.key.decode("ascii", "replace") for c in touched)
        self._log.warning("somebody changed keys of this node, or ended its lease", keys=names)
        feed.wait(self._pace.next())
        return False

    def _is_touched(self, change: Change) -> bool:
        """Whether somebody else changed a key of this node."""
        pair = change.pair
        if not self._registration.is_own(pair.key):
            return False
        return change.deleted or not self._registration.is_mine(pair.key, pair.value, pair.lease)

    def _publish(self, feed: Feed) -> None:
        """All nodes, this one first, as it knows itself."""
        node = self._registration.node or self._registration.stand_in()
        nodes = self._picture.nodes
        elders = self._elders.beside({node.name, *nodes}, self._picture.holders)
        feed.snapshot(
            (node, *nodes.values(), *elders), self._settings.cluster_cidrs, self._position()
        )
        self._tell_refused()

    def _position(self) -> str:
        """Where to go on from, and until when nodes are kept that etcd does not know, if any."""
        if self._at is None:
            return ""
        left = self._elders.left
        end = "" if math.isinf(left) else f":{int(time.time() + left)}"
        return f"{self._at.cluster}:{self._at.revision}{end}"

    def _tell_refused(self) -> None:
        """Say once what is left out, and why."""
        refused = self._picture.refused
        fresh = [key for key, why in refused.items() if self._told.get(key) != why]
        for key in fresh[:_TOLD_MAX]:
            self._log.warning(f"left out: the key {key} {refused[key]}")
        if len(fresh) > _TOLD_MAX:
            self._log.warning(f"left out: {len(fresh) - _TOLD_MAX} more keys")
        self._told = dict(refused)

    def _count(self, size: int) -> None:
        if self._feed is not None:
            self._feed.count(size)
