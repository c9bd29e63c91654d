"""A source that an engine elsewhere feeds: a thread listens to it, the routing loop polls.

Whatever the engine does (away, slow, hostile), the last snapshot stays; `fault` says since when.
What was known is kept on disk too, so that a daemon that starts meanwhile routes at once.
"""

from __future__ import annotations

import random
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from daemon.log import Log
from daemon.model import News, Snapshot
from daemon.sources.cache import Keeper, Unreadable, load
from daemon.sources.feed import Feed as Feed  # what clients are written against, too

PAUSE, PAUSE_MAX = 1.0, 30.0
"""Seconds: the first pause after a failure is at most that long, a later one at most that."""
CALM = 60.0
"""Seconds without failure after which the next one counts as the first."""
_PAUSE_MIN = 0.05
_STOP_SECONDS = 2.0


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


class RemoteSource:
    """A daemon.model.Source of whatever a client hears, from its making to `close`.

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
