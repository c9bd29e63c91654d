"""What a client of an engine has heard, between its thread and the routing loop's."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from daemon.model import News, Node, Snapshot
from daemon.sources.cache import Keeper, LastKnown
from kernel.model import IPNetwork

_MANY = 500
"""So many nodes changed at once leave something to collect."""
_TEXT_MAX = 1000
"""Characters of a fault. Whoever words it bounds what others say in it, not the advice behind."""


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
        """The same nodes, as of a later position; see `snapshot`."""
        with self._mutex:
            if self._last is not None and position != self._position:
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
            self._position = known.position
            self._borrowed = known.saved
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
        known = LastKnown(self._identity, snapshot.nodes, snapshot.cluster_cidrs, self._position)
        self._keeper.note(known, urgent=urgent)

    def _ring(self) -> None:
        if self.bell >= 0:
            with suppress(BlockingIOError):
                os.eventfd_write(self.bell, 1)


def _harmless(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_TEXT_MAX])


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
