"""A source that an engine elsewhere feeds: a thread listens to it, the routing loop polls.

Whatever the engine does (away, slow, hostile), the last snapshot stays; `fault` says since when.
What was known is kept on disk too, so that a daemon that starts meanwhile routes at once.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from daemon.cluster import News, Node, Snapshot
from daemon.log import Log
from daemon.sources.lastknown import Keeper, LastKnown, Unreadable, load
from kernel.model import IPNetwork

PAUSE, PAUSE_MAX = 1.0, 30.0
"""Seconds: the first pause after a failure is at most that long, a later one at most that."""
CALM = 60.0
"""Seconds without failure after which the next one counts as the first."""
_PAUSE_MIN = 0.05
_STOP_SECONDS = 2.0
_MANY = 500
_TEXT_MAX = 300


class SourceError(Exception):
    """The engine cannot be used as it is; the message says why, in words for an operator."""


class Client(Protocol):
    """What listens to one kind of engine."""

    @property
    def identity(self) -> str:
        """Which cluster of which engine; what was known of another one is not used."""

    def check(self) -> None:
        """Whether podwire could speak to the engine: libraries, files. Raises SourceError.

        Nobody is spoken to.
        """

    def follow(self, feed: Feed) -> None:
        """Feed what the engine says, until `feed.stopping`.

        May raise whatever it likes: that is told, and it is called again after a while.
        """

    def interrupt(self) -> None:
        """Make `follow`, which waits in another thread, end soon. Never raises."""

    def leave(self) -> Sequence[str]:
        """Withdraw what this node published; that, in words. Raises SourceError."""


class Feed:
    """Where a client puts what it hears. Its methods may be called from any thread.

    known: what an earlier daemon knew, None where nothing is; those nodes are in use already.
    """

    def __init__(self, keeper: Keeper, identity: str) -> None:
        self.known: LastKnown | None = None
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.news = News()
        self._keeper, self._identity = keeper, identity
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._nodes: dict[str, Node] = {}
        self._last: Snapshot | None = None
        self._fresh: Snapshot | None = None
        self._position = ""
        self._why, self._since = "", 0.0
        self._troubles: dict[str, str] = {}
        self._borrowed = 0.0

    # -- for the client

    @property
    def stopping(self) -> bool:
        """Whether the source is being closed."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, less where the source is closed meanwhile; whether it is."""
        return self._stop.wait(seconds)

    def snapshot(
        self,
        nodes: Mapping[str, Node] | Iterable[Node],
        cluster_cidrs: Iterable[IPNetwork],
        position: str = "",
    ) -> None:
        """All nodes as they are now; names are unique.

        position: where the client can go on from after a restart, if anywhere; see `known`.
        """
        given = nodes.values() if isinstance(nodes, Mapping) else nodes
        with self._mutex:
            kept = self._nodes
            fresh = tuple(kept[n.name] if kept.get(n.name) == n else n for n in given)
            changed = sum(kept.get(n.name) is not n for n in fresh)
            self._nodes = {node.name: node for node in fresh}
            self._position, self._borrowed = position, 0.0
            self._offer(Snapshot(fresh, tuple(cluster_cidrs)))
        if changed > _MANY:
            gc.collect()

    def same(self, node: Node) -> Node:
        """The node as the object that is in use already, if it is equal."""
        kept = self._nodes.get(node.name)
        return kept if kept == node and kept is not None else node

    def mark(self, position: str) -> None:
        """The same nodes, as of a later position."""
        with self._mutex:
            if position != self._position and self._last is not None:
                self._position = position
                self._keep(self._last, urgent=False)

    def heard(self, bytes: int = 0, events: int = 0) -> None:
        """A sign of life of an engine that is followed: what was lost is found."""
        with self._mutex:
            old = self.news
            self.news = replace(
                old,
                heard=time.monotonic(),
                events=old.events + events,
                bytes=old.bytes + bytes,
            )
            self._why = ""

    def count(self, bytes: int) -> None:
        """Bytes that were received, and say nothing of whether all is well."""
        with self._mutex:
            self.news = replace(self.news, bytes=self.news.bytes + bytes)

    def refused(self) -> None:
        """Something was heard that is not used."""
        with self._mutex:
            self.news = replace(self.news, refused=self.news.refused + 1)

    def trouble(self, what: str, why: str) -> None:
        """Something beside following the engine does not work; why, empty once it does."""
        with self._mutex:
            self._troubles.pop(what, None)
            if why:
                self._troubles[what] = _harmless(why)

    def lost(self, why: str) -> None:
        """The engine is not followed any more, or not yet; why, in words for an operator."""
        text = _harmless(why)
        with self._mutex:
            if not self._why:
                self._since = time.time()
            self._why = text or "lost"

    # -- for the source

    @property
    def fault(self) -> str:
        """Why the last snapshot may be an old one; empty while it is current."""
        with self._mutex:
            texts = list(self._troubles.values())
            if self._why:
                saved = f"; its last known state is of {_clock(self._borrowed)}"
                since = f"since {_clock(self._since)}{saved if self._borrowed else ''}"
                texts.insert(0, f"{self._why} ({since})")
            return "; ".join(texts)

    def begin(self, known: LastKnown) -> None:
        """Use what an earlier daemon knew."""
        with self._mutex:
            self.known = known
            self._nodes = {node.name: node for node in known.nodes}
            self._position, self._borrowed = known.position, known.saved
            self._last = self._fresh = Snapshot(known.nodes, known.cluster_cidrs)
            self._ring()

    def take(self) -> Snapshot | None:
        """The newest snapshot, once."""
        with self._mutex:
            if self.bell >= 0:
                with suppress(BlockingIOError):
                    os.eventfd_read(self.bell)
            fresh, self._fresh = self._fresh, None
            return fresh

    def stop(self) -> None:
        """Ask the client to end."""
        self._stop.set()

    def close(self) -> None:
        """Release the descriptor."""
        with self._mutex:
            fd, self.bell = self.bell, -1
        if fd >= 0:
            os.close(fd)

    def _offer(self, snapshot: Snapshot) -> None:
        if snapshot == self._last:
            self._keep(snapshot, urgent=False)
            return
        self._last = self._fresh = snapshot
        self.news = replace(self.news, snapshots=self.news.snapshots + 1)
        self._keep(snapshot, urgent=True)
        self._ring()

    def _keep(self, snapshot: Snapshot, *, urgent: bool) -> None:
        known = LastKnown(
            self._identity, snapshot.nodes, snapshot.cluster_cidrs, self._position, 0.0
        )
        self._keeper.note(known, urgent=urgent)

    def _ring(self) -> None:
        if self.bell >= 0:
            with suppress(BlockingIOError):
                os.eventfd_write(self.bell, 1)


class RemoteSource:
    """A daemon.cluster.Source of whatever a client hears, from its making to `close`.

    last_known: the file of what was known. pause, pause_max: see PAUSE, PAUSE_MAX.
    """

    def __init__(
        self,
        client: Client,
        *,
        last_known: Path,
        log: Log,
        pause: float = PAUSE,
        pause_max: float = PAUSE_MAX,
    ) -> None:
        self._client, self._path, self._log = client, last_known, log
        self._pause, self._pause_max = pause, pause_max
        self._keeper = Keeper(last_known, log)
        self._feed = Feed(self._keeper, client.identity)
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str:
        """Why the last snapshot is still in use, and since when."""
        return self._feed.fault

    @property
    def news(self) -> News:
        """How much was heard."""
        return self._feed.news

    def fileno(self) -> int | None:
        """Readable while there is a snapshot that was not polled."""
        return self._feed.bell

    def poll(self) -> Snapshot | None:
        """The newest snapshot, once."""
        return self._feed.take()

    def close(self) -> None:
        """End the thread, and keep what is known. An engine that hangs does not hold it up."""
        self._feed.stop()
        self._client.interrupt()
        self._thread.join(_STOP_SECONDS)
        self._keeper.close()
        self._feed.close()

    def _run(self) -> None:
        self._load()
        attempt = 0
        while not self._feed.stopping:
            began = time.monotonic()
            self._follow()
            if time.monotonic() - began > CALM:
                attempt = 0
            # Full jitter: thousands of daemons that lost one engine do not come back as one.
            most = min(self._pause_max, self._pause * 2 ** min(attempt, 16))
            self._feed.wait(max(_PAUSE_MIN, random.uniform(0, most)))  # noqa: S311 - no secret
            attempt += 1

    def _follow(self) -> None:
        try:
            self._client.follow(self._feed)
        except SourceError as error:
            self._feed.lost(str(error))
        except Exception as error:  # whatever it is, the daemon must go on
            self._feed.lost(f"the source fails: {error!r}")
            self._log.debug(traceback.format_exc())

    def _load(self) -> None:
        try:
            known = load(self._path, self._client.identity)
        except Unreadable as error:
            self._log.warning(f"the last known state {self._path} is not used: it {error}")
            return
        if known is not None:
            self._feed.begin(known)
            self._log.info("the last known state of the cluster is in use", nodes=len(known.nodes))


def _harmless(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_TEXT_MAX])


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
