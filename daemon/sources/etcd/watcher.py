"""One watch of all keys, with the lease kept alive beside it."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from daemon.sources.etcd.faults import Denied, Unauthenticated, Unreachable
from daemon.sources.etcd.gateway import Gateway
from daemon.sources.etcd.keys import Keys
from daemon.sources.etcd.lease import Registration
from daemon.sources.etcd.stream import Stream
from daemon.sources.etcd.transaction import text_of
from daemon.sources.etcd.values import Malformed, Pair, parse_pair
from daemon.sources.remote import Feed

SILENCE = 1500.0
"""Seconds: etcd tells of itself after 10 minutes without an event (mvcc, progress reports)."""
RENEW_MAX = 120.0
"""Seconds between two signs of life, where a third of the lease's time is longer."""


class Compacted(Exception):
    """Events were missed, and are gone: everything must be read anew."""


@dataclass(frozen=True, slots=True)
class Change:
    """A key that changed. deleted: the pair has its key alone."""

    pair: Pair
    deleted: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What changed, up to a revision; 0 = it does not say."""

    changes: list[Change] = field(default_factory=list)
    revision: int = 0


class Watcher:
    """A watch from one revision on; a context manager, which ends the renewing too.

    limit: seconds after which it ends, more or less, with nothing wrong.
    """

    def __init__(
        self, gateway: Gateway, keys: Keys, registration: Registration, feed: Feed, renew: float
    ) -> None:
        self._gateway, self._keys, self._feed = gateway, keys, feed
        self._registration, self._renew = registration, renew
        self.limit = math.inf
        self._done = threading.Event()
        self._stream: Stream | None = None
        self._fault: Exception | None = None
        self._answered = False
        self._keeper = threading.Thread(target=self._keep, name="etcd-lease", daemon=True)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._stream is not None:
            self._stream.close()
        if self._keeper.is_alive():
            self._keeper.join()

    def interrupt(self) -> None:
        """End `answers`, which waits in another thread. Never raises."""
        self._done.set()
        if self._stream is not None:
            self._stream.interrupt()

    def answers(self, after: int) -> Iterator[Answer]:
        """What happens after a revision, as it does. Raises Compacted, SourceError."""
        body = {
            "key": text_of(self._keys.root),
            "range_end": text_of(self._keys.end),
            "start_revision": str(after + 1),
            "progress_notify": True,
        }
        self._keeper.start()
        self._stream = self._gateway.watch(body, SILENCE)
        if not self._done.is_set():
            yield from self._follow(self._stream)
        if self._fault is not None:
            raise self._fault

    def _follow(self, stream: Stream) -> Iterator[Answer]:
        told = 0
        try:
            for result in stream.answers():
                answer = self._read(result)
                self._answered = True
                self._feed.heard(stream.bytes - told, len(answer.changes))
                told = stream.bytes
                yield answer
        except Unreachable:
            self._gateway.leave(stream.endpoint)
            raise

    def _read(self, result: dict[str, Any]) -> Answer:
        if result.get("canceled"):
            raise self._reason(result)
        try:
            if result.get("created"):
                return Answer()
            changes = [
                Change(parse_pair(event["kv"]), event.get("type") == "DELETE")
                for event in result.get("events", ())
            ]
            if changes:
                # The header's revision may be of events that are still to come.
                return Answer(changes, max(change.pair.modified for change in changes))
            return Answer([], int(result["header"]["revision"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed("an event that cannot be read") from error

    def _reason(self, result: dict[str, Any]) -> Exception:
        """Why etcd ended the watch (rpc.proto, WatchResponse)."""
        if int(result.get("compact_revision", 0)):
            return Compacted()
        why = str(result.get("cancel_reason", "no reason given"))[:200]
        text = f"{self._gateway.endpoint}: the watch was ended: {why}"
        if "auth token" in why or "Unauthenticated" in why or "auth store" in why:
            self._gateway.forget_token()
            return Unauthenticated(text)
        if "permission denied" in why:
            return Denied(text)
        return Unreachable(text)

    def _keep(self) -> None:
        """Renew the lease until the watch ends; where that fails the watch ends too."""
        end = time.monotonic() + self.limit
        while not self._done.wait(self._renew * random.uniform(0.8, 1.0)):  # noqa: S311 - no secret
            if time.monotonic() > end:
                self.interrupt()
                return
            try:
                self._registration.renew()
                if self._answered:  # a lease alone tells nothing of the others
                    self._feed.heard()
                if self._stream is not None and self._gateway.endpoint != self._stream.endpoint:
                    raise Unreachable(f"{self._stream.endpoint} does not answer any more")
                ended = self._registration.has_moved()
            except Exception as error:  # whatever it is: without this thread the lease ends
                self._fault, ended = error, True
            if ended:
                self.interrupt()
                return


def renew_seconds(lease_seconds: int) -> float:
    """Seconds between two renewals of a lease."""
    return min(lease_seconds / 3, RENEW_MAX)
