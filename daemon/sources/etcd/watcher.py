"""The watch of all keys: a stream of events, with this node's lease renewed beside it."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from daemon.sources.etcd.gateway import Denied, Gateway, Unauthenticated
from daemon.sources.etcd.keys import Keys, KeyValue, Malformed, encode, parse_key_value
from daemon.sources.etcd.stream import Stream
from daemon.sources.http import Unreachable
from daemon.sources.remote import Feed

SILENCE = 1500.0
"""Seconds: etcd reports progress after 10 minutes without an event (mvcc, progress reports)."""
REQUEST_PATIENCE = 600.0
"""Seconds that a request may take, with every member tried in turn."""
RENEW_MAX = 120.0
"""Seconds between two renewals, where a third of the lease's time is longer."""
_LOOK, _URGENT_LOOKS = 5.0, 2
"""Seconds between two looks whether a renewal is urgent, and how many must find that in a row."""


class Compacted(Exception):
    """Events were missed, and are deleted: all keys must be read again."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key that changed. deleted: the pair has its key alone."""

    pair: KeyValue
    deleted: bool


@dataclass(frozen=True, slots=True)
class WatchAnswer:
    """What changed, up to a revision; 0 = not given."""

    changes: list[KeyChange] = field(default_factory=list)
    revision: int = 0


class Watcher:
    """A watch from one revision on; a context manager, which stops the renewals too.

    renew: renews the lease, and returns whether the watch must end. is_urgent: whether that is not
    to wait until it is due. limit: seconds after which it ends, more or less, without an error.
    """

    def __init__(
        self,
        gateway: Gateway,
        keys: Keys,
        feed: Feed,
        *,
        renew: Callable[[], bool],
        renew_seconds: float,
        is_urgent: Callable[[], bool] = lambda: False,
        limit: float = math.inf,
    ) -> None:
        self._gateway, self._keys, self._feed, self._is_urgent = gateway, keys, feed, is_urgent
        self._renew, self._renew_seconds, self._limit = renew, renew_seconds, limit
        self._done = threading.Event()
        self._stream: Stream | None = None
        self._fault: Exception | None = None
        self._answered = False
        self._renewer = threading.Thread(
            target=self._renew_until_end, name="etcd-lease", daemon=True
        )

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._stream is not None:
            self._stream.close()
        if self._renewer.is_alive():
            self._renewer.join()

    def interrupt(self) -> None:
        """End `answers`, which waits in another thread. Never raises."""
        self._done.set()
        if self._stream is not None:
            self._stream.interrupt()

    def answers(self, after: int) -> Iterator[WatchAnswer]:
        """What happens after a revision, as it does. Raises Compacted, SourceError."""
        body = {
            "key": encode(self._keys.root),
            "range_end": encode(self._keys.end),
            "start_revision": str(after + 1),
            "progress_notify": True,
        }
        self._renewer.start()
        self._stream = self._gateway.watch(body, SILENCE)
        if not self._done.is_set():
            yield from self._follow(self._stream)
        if self._fault is not None:
            raise self._fault

    def _follow(self, stream: Stream) -> Iterator[WatchAnswer]:
        try:
            for result in stream.answers():
                answer = self._read(result)
                self._answered = True
                self._feed.received(len(answer.changes))
                yield answer
        except Unreachable:
            self._gateway.leave(stream.endpoint)
            raise

    def _read(self, result: dict[str, Any]) -> WatchAnswer:
        if result.get("canceled"):
            raise self._reason(result)
        try:
            if result.get("created"):
                return WatchAnswer()
            changes = [
                KeyChange(parse_key_value(event["kv"]), event.get("type") == "DELETE")
                for event in result.get("events", ())
            ]
            if changes:
                # The header's revision may be of events that are still to come.
                return WatchAnswer(changes, max(change.pair.modified for change in changes))
            return WatchAnswer([], int(result["header"]["revision"]))
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

    def _renew_until_end(self) -> None:
        """Renew the lease until the watch ends; where that fails the watch ends too."""
        with self._feed.watched("etcd-lease", self._renew_seconds + REQUEST_PATIENCE):
            self._renew_in_time()

    def _renew_in_time(self) -> None:
        end = time.monotonic() + self._limit
        while not self._wait_until_due():
            if time.monotonic() > end:
                self.interrupt()
                return
            self._feed.progress()
            try:
                ended = self._renew()
                if self._answered:  # a renewal alone does not show that events come
                    self._feed.received()
                if self._stream is not None and self._gateway.endpoint != self._stream.endpoint:
                    raise Unreachable(f"{self._stream.endpoint} does not answer any more")
            except Exception as error:  # whatever it is: without this thread the lease ends
                self._fault, ended = error, True
            if ended:
                self.interrupt()
                return

    def _wait_until_due(self) -> bool:
        """Sleep until a renewal is due, or urgent; whether the watch has ended."""
        due, urgent = time.monotonic() + self._jittered(), 0
        while urgent < _URGENT_LOOKS and (rest := due - time.monotonic()) > 0:
            if self._done.wait(min(rest, _LOOK)):
                return True
            urgent = urgent + 1 if self._is_urgent() else 0
        return self._done.is_set()

    def _jittered(self) -> float:
        return self._renew_seconds * random.uniform(0.8, 1.0)  # noqa: S311 - no secret


def renewal_seconds(lease_seconds: int) -> float:
    """Seconds between two renewals of a lease."""
    return min(lease_seconds / 3, RENEW_MAX)
