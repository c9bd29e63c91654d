"""A source behind an API: a client follows it in a thread, the routing loop polls.

Whatever the API does (away, slow, hostile), the last snapshot stays; `fault` has the time since
when. The last known state is kept on disk too, so that a daemon that starts meanwhile routes at
once.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from daemon.backoff import Backoff
from daemon.delayed_file import DelayedFile
from daemon.liveness.watchdog import Watch, WatchedLoop, unwatched
from daemon.log import Log
from daemon.model import Node, Snapshot, SourceActivity
from daemon.sources.cache import POSITION_GAP, LastKnown, Unreadable, load, open_cache
from kernel.model import IPNetwork

CALM = 60.0
"""Seconds without failure after which the next one counts as the first."""
_PAUSE_MIN = 0.05
_STOP_SECONDS = 2.0
_MANY = 500
"""That many nodes changed at once leave enough garbage to collect."""
_TEXT_MAX = 1000
"""Characters of a fault. The client bounds what it quotes, so that its own hint is not cut off."""


class SourceError(Exception):
    """The API cannot be used as it is; the message has the reason, for an operator."""


class Client(Protocol):
    """Follows one kind of API.

    pauses: seconds; the first pause after a failure is at most that long, a later one at most that.
    patience: seconds that `follow` waits for a byte at most, with room for what it does then.
    """

    pauses: tuple[float, float]
    patience: float

    @property
    def identity(self) -> str:
        """Which cluster of which API; the last known state of another one is not used."""

    def check(self) -> None:
        """Whether podwire could connect: libraries, files. Raises SourceError.

        No connection is made.
        """

    def follow(self, feed: Feed) -> None:
        """Feed what the API sends, until `feed.stopping`.

        May raise any exception: it becomes the fault, and the call is repeated after a pause.
        """

    def interrupt(self) -> None:
        """Make `follow`, which waits in another thread, end soon. Never raises."""

    def leave(self) -> Sequence[str]:
        """Withdraw what this node published; a description of each. Raises SourceError."""


class Feed:
    """Passes what a client receives to the routing loop. Its methods may be called from any thread.

    known: the last known state of an earlier daemon, if any; those nodes are in use already.
    """

    def __init__(
        self, cache: DelayedFile[LastKnown], identity: str, watch: Watch = unwatched
    ) -> None:
        self._watch = watch
        self._watched: dict[int, tuple[WatchedLoop, float]] = {}
        self.known: LastKnown | None = None
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.activity = SourceActivity()
        self._cache, self._identity = cache, identity
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._nodes: dict[str, Node] = {}
        self._last: Snapshot | None = None
        self._fresh: Snapshot | None = None
        self._position = ""
        self._why, self._since = "", 0.0
        self._degraded: dict[str, str] = {}
        self._saved = 0.0

    # -- for the client

    @property
    def stopping(self) -> bool:
        """Whether the source is being closed."""
        return self._stop.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, until the source is closed at most; whether it is."""
        self.progress(seconds)
        return self._stop.wait(seconds)

    def rest(self, most: float) -> None:
        """Sleep for so long at most: a random time, so that daemons do not come back together."""
        self.wait(random.uniform(0, most))  # noqa: S311 - no secret

    @contextmanager
    def watched(self, name: str, within: float) -> Iterator[None]:
        """The calling thread makes progress, or receives something, in so many seconds."""
        thread, loop = threading.get_ident(), self._watch(name)
        self._watched[thread] = loop, within
        try:
            self.progress()
            yield
        finally:
            del self._watched[thread]
            loop.end()

    def progress(self, more: float = 0.0) -> None:
        """The calling thread makes progress; more: seconds that it is about to sleep."""
        if found := self._watched.get(threading.get_ident()):
            loop, within = found
            loop.beat(within + more)

    def snapshot(
        self, nodes: Iterable[Node], cluster_cidrs: Iterable[IPNetwork], position: str = ""
    ) -> None:
        """All nodes as they are now; names are unique.

        position: from where the client can go on after a restart, if anywhere; see `known`.
        """
        with self._mutex:
            kept = self._nodes
            fresh = tuple(kept[n.name] if kept.get(n.name) == n else n for n in nodes)
            changed = sum(kept.get(n.name) is not n for n in fresh)
            self._nodes = {node.name: node for node in fresh}
            self._position, self._saved = position, 0.0
            self._offer(Snapshot(fresh, tuple(cluster_cidrs)))
        if changed > _MANY:
            gc.collect()

    def same(self, node: Node) -> Node:
        """The node as the object that is in use already, if it is equal."""
        kept = self._nodes.get(node.name)
        return kept if kept == node and kept is not None else node

    def mark(self, position: str) -> None:
        """The same nodes, as of a later position; see `snapshot`."""
        with self._mutex:
            if self._last is not None and position != self._position:
                self._position = position
                self._keep(self._last, urgent=False)

    def received(self, events: int = 0) -> None:
        """The API sent something: a connection that was lost is back."""
        self.progress()
        with self._mutex:
            now, events = time.monotonic(), self.activity.events + events
            self.activity = replace(
                self.activity, last_received=now, events=events, is_starting=False
            )
            self._why = ""

    def count(self, bytes: int) -> None:
        """Count received bytes, which do not show that the connection is back."""
        self.progress()
        with self._mutex:
            self.activity = replace(self.activity, bytes=self.activity.bytes + bytes)

    def degraded(self, what: str, why: str) -> None:
        """Something beside the connection does not work; why: empty once it does."""
        with self._mutex:
            self._degraded.pop(what, None)
            if why:
                self._degraded[what] = _printable(why)

    def lost(self, why: str) -> None:
        """The API is not followed any more, or not yet; why: for an operator."""
        text = _printable(why)
        with self._mutex:
            if not self._why:
                self._since = time.time()
            self._why = text or "lost"
            self.activity = replace(self.activity, is_starting=False)

    # -- for the source

    @property
    def fault(self) -> str:
        """Why the last snapshot may be an old one; empty while it is current."""
        with self._mutex:
            texts = list(self._degraded.values())
            if self._why:
                saved = f"; its last known state is of {_clock(self._saved)}"
                since = f"since {_clock(self._since)}{saved if self._saved else ''}"
                texts.insert(0, f"{self._why} ({since})")
            return "; ".join(texts)

    def begin(self, known: LastKnown) -> None:
        """Use the last known state of an earlier daemon."""
        with self._mutex:
            self.known = known
            self._nodes = {node.name: node for node in known.nodes}
            self._position, self._saved = known.position, known.saved
            self._last = self._fresh = Snapshot(known.nodes, known.cluster_cidrs)
            self._why, self._since = "nothing was received from the source yet", time.time()
            self.activity = replace(self.activity, is_starting=True)
            self._wake()

    def fileno(self) -> int | None:
        """Readable while there is a snapshot that was not polled."""
        return self._wakeup

    def poll(self) -> Snapshot | None:
        """The newest snapshot, once."""
        with self._mutex:
            if self._wakeup >= 0:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wakeup)
            fresh, self._fresh = self._fresh, None
            return fresh

    def close(self) -> None:
        """Release the descriptor."""
        with self._mutex:
            fd, self._wakeup = self._wakeup, -1
        if fd >= 0:
            os.close(fd)

    def _offer(self, snapshot: Snapshot) -> None:
        if snapshot == self._last:
            self._keep(snapshot, urgent=False)
            return
        self._last = self._fresh = snapshot
        self.activity = replace(self.activity, snapshots=self.activity.snapshots + 1)
        self._keep(snapshot, urgent=True)
        self._wake()

    def _keep(self, snapshot: Snapshot, *, urgent: bool) -> None:
        known = LastKnown(self._identity, snapshot.nodes, snapshot.cluster_cidrs, self._position)
        # Few seconds while there is none, for `podwirectl` plans by it.
        is_soon = urgent or not self._cache.path.exists()
        self._cache.update(known, None if is_soon else POSITION_GAP)

    def _wake(self) -> None:
        if self._wakeup >= 0:
            with suppress(BlockingIOError):
                os.eventfd_write(self._wakeup, 1)


class RemoteSource(Feed):
    """A daemon.model.Source that a client feeds in a thread, from its construction to `close`.

    last_known: the file of the last known state.
    """

    def __init__(
        self, client: Client, *, last_known: Path, log: Log, watch: Watch = unwatched
    ) -> None:
        super().__init__(open_cache(last_known, log), client.identity, watch)
        self._client, self._path, self._log = client, last_known, log
        # Full jitter: thousands of daemons that lost one API do not come back at the same moment.
        self._backoff = Backoff(*client.pauses, calm=CALM, jitter=1.0)
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, and keep what is known. An API that hangs does not delay it."""
        self._stop.set()
        self._client.interrupt()
        self._thread.join(_STOP_SECONDS)
        self._cache.close()
        super().close()

    def _run(self) -> None:
        with self.watched("source", self._client.patience):
            self._load()
            while not self.stopping:
                self._follow()
                self.wait(max(_PAUSE_MIN, self._backoff.next(time.monotonic())))

    def _follow(self) -> None:
        try:
            self._client.follow(self)
        except SourceError as error:
            self.lost(str(error))
        except Exception as error:  # whatever it is, the daemon must go on
            self.lost(f"the source fails: {error!r}")
            self._log.debug(traceback.format_exc())

    def _load(self) -> None:
        try:
            known = load(self._path, self._client.identity)
        except Unreadable as error:
            self._log.warning(f"the last known state {self._path} is not used: it {error}")
            return
        if known is not None:
            self._log.info("the last known state of the cluster is in use", nodes=len(known.nodes))
            self.begin(known)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_TEXT_MAX])


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
