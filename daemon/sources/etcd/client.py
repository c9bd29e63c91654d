"""The etcd source: leases this node's subnets, and follows all other nodes."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from daemon.backoff import Backoff
from daemon.config import LEASE
from daemon.config.schema import EtcdSettings
from daemon.log import Log
from daemon.sources.etcd.cluster_view import GRACE, EtcdView, KeptNodes
from daemon.sources.etcd.credentials import check_files
from daemon.sources.etcd.gateway import Gateway, RequestRefused
from daemon.sources.etcd.keys import (
    Header,
    Keys,
    KeyValue,
    Malformed,
    encode,
    header_of,
    parse_key_value,
)
from daemon.sources.etcd.lease import LeaseFile, LeaseLost
from daemon.sources.etcd.registration import Registration
from daemon.sources.etcd.subnet_pool import NoSubnet
from daemon.sources.etcd.watcher import (
    REQUEST_PATIENCE,
    SILENCE,
    Compacted,
    KeyChange,
    WatchAnswer,
    Watcher,
    renewal_seconds,
)
from daemon.sources.remote import Feed, SourceError

PAUSES = 1.0, 30.0
"""Seconds: the first and the longest pause after etcd could not be reached."""
PAGE = 2_000
"""Keys in an answer: etcd and this daemon hold one page at a time, not the cluster."""
OUT_OF_RANGE = 11
"""gRPC's code for a revision that was compacted (rpctypes, ErrGRPCCompacted)."""
_LOGGED_MAX = 8
"""RequestRefused keys that are logged each at a time."""
_RACES_LOGGED = 8
_LEAVE_TRIES = 5
_REPAIR_MOST, _REPAIR_CALM = 60.0, 600.0
_SPREAD_PER_NODE, _SPREAD_MAX = 0.006, 30.0
"""Seconds over which daemons read all keys again that they know: 5,000 of them over 30 s."""


class EtcdClient:
    """The client of `daemon.sources.remote.RemoteSource` for etcd."""

    def __init__(self, settings: EtcdSettings, *, node: str, data_dir: Path, log: Log) -> None:
        self.pauses, self.patience = PAUSES, SILENCE + REQUEST_PATIENCE
        self._settings, self._log = settings, log
        self._keys = Keys(settings.prefix)
        self._view = EtcdView(self._keys, settings.cluster_cidrs, node)
        file = LeaseFile(data_dir / LEASE, f"etcd {settings.prefix}", node, log)
        first = zlib.crc32(node.encode())
        self._gateway = Gateway(settings, log, first=first, received=self._count)
        self._registration = Registration(self._gateway, self._keys, settings, node, file, log)
        self._feed: Feed | None = None
        self._watcher: Watcher | None = None
        self._at: Header | None = None
        self._missed = False
        self._newest: Header | None = None
        self._kept = KeptNodes()
        most = min(settings.lease_seconds / 3, _REPAIR_MOST)
        self._repairs = Backoff(0.1, most, calm=_REPAIR_CALM)
        self._logged: dict[str, str] = {}

    @property
    def identity(self) -> str:
        """The endpoints and the prefix of the keys."""
        return f"etcd {self._settings.prefix} at {' '.join(sorted(self._settings.endpoints))}"

    def check(self) -> None:
        """Whether the files can be read. Raises SourceError."""
        check_files(self._settings)

    def follow(self, feed: Feed) -> None:
        """Hold this node's subnets, and feed all nodes, until the feed stops."""
        if self._feed is None:
            self._resume(feed)
        self._feed = feed
        try:
            while not feed.stopping:
                self._synchronize(feed)
                self._watch(feed)
        except Malformed as error:
            raise SourceError(f"{self._gateway.endpoint}: {error}") from error

    def interrupt(self) -> None:
        """End `follow`, which waits in another thread."""
        if self._watcher is not None:
            self._watcher.interrupt()
        self._gateway.close()

    def leave(self) -> Sequence[str]:
        """Give back what this node holds; a description of each. Raises SourceError."""
        try:
            for _ in range(_LEAVE_TRIES):
                _, pairs = read_all(self._gateway, self._keys)
                self._view.replace_all(pairs)
                removed = self._registration.withdraw(self._view)
                if removed is not None:
                    return removed
            raise SourceError("another client keeps writing this node's keys: nothing was removed")
        except Malformed as error:
            raise SourceError(f"{self._gateway.endpoint}: {error}") from error
        finally:
            self._gateway.close()

    # -- registering, and reading all keys

    def _resume(self, feed: Feed) -> None:
        """Go on where an earlier daemon ended; see `_position`."""
        if feed.known is None:
            return
        cluster, _, revision = feed.known.position.partition(":")
        if cluster and revision.isdecimal():
            self._view.restore(feed.known.nodes)
            self._at = self._newest = Header(cluster, int(revision))

    def _synchronize(self, feed: Feed) -> None:
        """Register this node, and know the cluster as of some revision."""
        if self._registration.release_former_name():
            self._at = None
        at = self._at
        if at is None or not self._can_resume(at):
            if at is not None:
                # Many daemons miss the same events, and what they know is good for a while.
                feed.rest(min(_SPREAD_MAX, _SPREAD_PER_NODE * len(self._view.nodes)))
            self._at = None
            self._begin_until_done(feed)
        if self._at is not None:
            self._publish(feed)

    def _begin_until_done(self, feed: Feed) -> None:
        """Begin, again where other nodes are faster; a fault if that does not end."""
        races = Backoff(0.2, 10.0, jitter=1.0)
        while not (feed.stopping or self._begin(feed)):
            feed.wait(races.next(time.monotonic()))
            if races.attempts >= _RACES_LOGGED:
                feed.lost(f"{races.attempts} times other clients wrote what this node was to write")

    def _can_resume(self, at: Header) -> bool:
        """Register again; whether a watch from that revision on misses nothing."""
        header = self._registration.refresh(self._view)
        try:
            registered = self._registration.register(self._view)
        except NoSubnet:
            registered = False
        # A watch of future revisions of another history would wait for ever.
        lost = self._missed or self._registration.lease.lost_early or not header.follows(at)
        return registered and not lost

    def _begin(self, feed: Feed) -> bool:
        """Read all keys, and register this node; False where another node was faster."""
        header, pairs = read_all(self._gateway, self._keys)
        self._check_history(header)
        self._view.replace_all(pairs)
        try:
            if not self._registration.register(self._view):
                return False
        except NoSubnet:
            # No other node reaches pods here; this node reaches all others nevertheless.
            self._registration.node = None
            self._publish(feed)
            raise
        self._at, self._missed = header, False
        return True

    def _check_history(self, header: Header) -> None:
        """Keep the nodes known so far where etcd was replaced, or restored from a backup."""
        newest, self._newest = self._newest, header
        lease = self._registration.lease
        lost_early, lease.lost_early = lease.lost_early, False
        if not lost_early and (newest is None or header.follows(newest)):
            return
        count = self._kept.keep(self._view.nodes)
        self._log.warning(
            "etcd is another one than before, or in an earlier state, or the lease was revoked:"
            f" nodes that are missing stay for {GRACE:.0f} s at most",
            nodes=count,
        )

    # -- watching

    def _watch(self, feed: Feed) -> None:
        """Apply events until this node's keys are changed, or events are missing."""
        at = self._at
        if at is None:
            return
        with Watcher(
            self._gateway,
            self._keys,
            feed,
            renew=self._renew,
            is_urgent=self._registration.has_lost_address,
            renew_seconds=renewal_seconds(self._settings.lease_seconds),
            limit=self._kept.seconds_left,
        ) as watcher:
            self._watcher = watcher
            if feed.stopping:
                return
            try:
                for answer in watcher.answers(at.revision):
                    if not self._apply(feed, at.cluster, answer):
                        break
            except LeaseLost:
                return
            except Compacted:
                self._missed = True

    def _renew(self) -> bool:
        """Renew the lease; whether this node must register again, with other addresses."""
        self._registration.lease.renew()
        return self._registration.has_moved()

    def _apply(self, feed: Feed, cluster: str, answer: WatchAnswer) -> bool:
        """Apply what changed; whether this node's keys are still as it wrote them."""
        if answer.revision:
            self._at = self._newest = Header(cluster, answer.revision)
        for change in answer.changes:
            if change.deleted:
                self._view.delete(change.pair.key)
            else:
                self._view.put(change.pair)
        if answer.changes:
            self._publish(feed)
        elif answer.revision:
            feed.mark(self._position())
        return self._keys_are_unchanged(feed, answer.changes)

    def _keys_are_unchanged(self, feed: Feed, changes: Sequence[KeyChange]) -> bool:
        changed = [
            change.pair.key.decode("ascii", "replace")
            for change in changes
            if self._registration.is_own(change.pair.key)
            and (change.deleted or not self._registration.is_as_written(change.pair))
        ]
        if not changed:
            return True
        self._log.warning(
            "another client changed keys of this node, or revoked its lease", keys=" ".join(changed)
        )
        feed.wait(self._repairs.next(time.monotonic()))
        return False

    # -- publishing

    def _publish(self, feed: Feed) -> None:
        """Feed all nodes, this one first, as it knows itself."""
        node = self._registration.node or self._registration.without_subnets()
        nodes = self._view.nodes
        missing = self._kept.missing({node.name, *nodes}, self._view.holders)
        self._log_refused()
        feed.snapshot(
            (node, *nodes.values(), *missing), self._settings.cluster_cidrs, self._position()
        )

    def _position(self) -> str:
        """CLUSTER:REVISION; empty while nodes are kept that are missing in etcd.

        A daemon that starts then reads all keys, and knows no others.
        """
        is_whole = self._at is not None and math.isinf(self._kept.seconds_left)
        return f"{self._at.cluster}:{self._at.revision}" if self._at and is_whole else ""

    def _log_refused(self) -> None:
        """Log once what is left out, and why."""
        refused = self._view.refused
        fresh = [key for key, why in refused.items() if self._logged.get(key) != why]
        for key in fresh[:_LOGGED_MAX]:
            self._log.warning(f"left out: the key {key} {refused[key]}")
        if len(fresh) > _LOGGED_MAX:
            self._log.warning(f"left out: {len(fresh) - _LOGGED_MAX} more keys")
        self._logged = dict(refused)

    def _count(self, size: int) -> None:
        if self._feed is not None:
            self._feed.count(size)


def read_all(gateway: Gateway, keys: Keys) -> tuple[Header, list[KeyValue]]:
    """All keys, and the revision as of which they are. Raises SourceError."""
    while True:
        try:
            return _read_pages(gateway, keys)
        except RequestRefused as error:
            # It was compacted between two pages.
            if error.code != OUT_OF_RANGE:
                raise


def _read_pages(gateway: Gateway, keys: Keys) -> tuple[Header, list[KeyValue]]:
    pairs: list[KeyValue] = []
    header: Header | None = None
    start, more = keys.root, True
    while more:
        body = {"key": encode(start), "range_end": encode(keys.end), "limit": str(PAGE)}
        if header is not None:
            body["revision"] = str(header.revision)
        answer = gateway.call("/kv/range", body)
        header = header or header_of(answer)
        entries = answer.get("kvs", [])
        pairs += map(parse_key_value, entries)
        more = bool(answer.get("more")) and bool(entries)
        start = pairs[-1].key + b"\0" if pairs else start
    if header is None:  # pragma: no cover - the loop runs once at least
        raise Malformed("no answer")
    return header, pairs
