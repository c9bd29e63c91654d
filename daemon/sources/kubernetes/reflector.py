"""One resource of the Kubernetes API, followed by a list and a watch in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.events import CHANGES, parse_event
from daemon.sources.kubernetes.objects import UnusableObject, find_position
from daemon.sources.kubernetes.own_object import PATIENCE, SILENCE, watch_query
from daemon.sources.kubernetes.retry import PAUSE, retry_pauses
from daemon.sources.remote import SourceError
from daemon.watchdog import Watch, unwatched

CALM = 60.0
"""Seconds without a failure after which pauses begin anew."""
_GONE = 410
_STOP_SECONDS = 2.0


class Reflector:
    """Passes the objects of a path on, trimmed.

    trim: what is kept of an object; None: it is left out. replaced: called with all objects;
    changed: with one, and whether it is gone. Both are called in the reflector's thread, and so is
    received, with the number of bytes as they arrive.
    fault: why what it passed on may be old; empty where it is not.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        path: str,
        query: Mapping[str, str],
        trim: Callable[[Any], Any],
        replaced: Callable[[list[Any]], None],
        changed: Callable[[Any, bool], None],
        log: Log,
        received: Callable[[int], None] = lambda _bytes: None,
        watch: Watch = unwatched,
    ) -> None:
        self.fault = ""
        self._settings, self._path, self._query = settings, path, query
        self._trim, self._replaced, self._changed = trim, replaced, changed
        self._log, self._received = log, received
        self._api: Api | None = None
        self._position = ""
        self._stop = threading.Event()
        self._loop = watch(f"watch of {path}")
        self._backoff = retry_pauses(CALM)
        self._thread = threading.Thread(target=self._run, name="api-policy", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End; a request that hangs ends with its own time limit."""
        self._stop.set()
        if api := self._api:
            api.interrupt()
        self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._loop.beat(PATIENCE)
                try:
                    self._follow()
                except Exception as error:  # whatever it is, what is known stays
                    self._fail(error)
        finally:
            self._loop.end()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ApiError) and error.status == _GONE:
            self._position = ""
        if self._stop.is_set():
            return
        self.fault = str(error) if isinstance(error, SourceError) else repr(error)
        self._log.debug(f"{self._path}: {self.fault}")
        pause = self._backoff.next(time.monotonic())
        self._loop.beat(pause + PATIENCE)
        self._stop.wait(pause)

    def _follow(self) -> None:
        """Over one set of connections, until it fails or is stopped."""
        api = self._api = Api(self._settings, self._received)
        try:
            while not self._stop.is_set():
                self._loop.beat(PATIENCE)
                if not self._position:
                    self._list(api)
                self._watch(api)
        finally:
            self._api = None
            api.close()

    def _list(self, api: Api) -> None:
        # From the API server's cache, which costs etcd nothing.
        query = {**self._query, "resourceVersion": "0"}
        found, position = api.stream_list(self._path, query, self._take_listed, SILENCE)
        self._replaced([each for each in found if each is not None])
        self._position, self.fault = position, ""

    def _take_listed(self, thing: Any) -> Any:
        self._loop.beat(PATIENCE)
        return self._trim(thing)

    def _watch(self, api: Api) -> None:
        """What one watch sends, to its end."""
        began = time.monotonic()
        query = {**self._query, **watch_query(self._position)}
        with api.watch(self._path, query, SILENCE) as batches:
            self.fault = ""
            for lines in batches:
                self._loop.beat(PATIENCE)
                for line in lines:
                    self._take(line)
                if self._stop.is_set():
                    return
        if time.monotonic() - began < PAUSE:
            raise SourceError("the Kubernetes API ends watches at once")

    def _take(self, line: bytes) -> None:
        with suppress(UnusableObject):
            event = parse_event(line, f"the watch of {self._path}")
            if event.kind in CHANGES:
                thing = self._trim(event.thing)
                if thing is not None:
                    self._changed(thing, event.kind == "DELETED")
            self._position = find_position(event.thing) or self._position
