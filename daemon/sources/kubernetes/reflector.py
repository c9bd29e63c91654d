"""One resource of the Kubernetes API, followed by a list and a watch in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

from daemon.config.schema import KubernetesSettings
from daemon.liveness.watchdog import Watch, unwatched
from daemon.log import Log
from daemon.sources.http import BadResponse
from daemon.sources.kubernetes.api import FORBIDDEN, GONE, RESTORED, TIMEOUT, Api, ApiError
from daemon.sources.kubernetes.events import CHANGES, parse_event
from daemon.sources.kubernetes.objects import UnusableObject, find_position
from daemon.sources.kubernetes.own_object import PATIENCE, SILENCE, list_query, watch_query
from daemon.sources.kubernetes.retry import PAUSE, retry_pauses
from daemon.sources.remote import SourceError

T = TypeVar("T")
Key = tuple[str, str]

CALM = 60.0
"""Seconds without a failure after which pauses begin anew."""
_STOP_SECONDS = 2.0
_GRANT = "apply packaging/kubernetes/rbac.yaml, or set `policy: false` in podwired.yaml"


class Reflector(Generic[T]):
    """Keeps what matters of the objects of a path.

    parse: an object's key and what is kept of it (None: nothing); None where it cannot be used.
    changed: called with the number of events, 0 for a list; received: with the number of bytes as
    they arrive; both in the reflector's thread. fault: why what is kept may be old; empty where it
    is not.
    """

    def __init__(
        self,
        settings: KubernetesSettings,
        path: str,
        query: Mapping[str, str],
        parse: Callable[[Any], tuple[Key, T | None] | None],
        changed: Callable[[int], None],
        received: Callable[[int], None],
        log: Log,
        watch: Watch = unwatched,
    ) -> None:
        self.fault = ""
        self._settings, self._path, self._query = settings, path, query
        self._parse, self._changed, self._received, self._log = parse, changed, received, log
        self._mutex = threading.Lock()
        self._items: dict[Key, T] | None = None
        self._api: Api | None = None
        self._position = ""
        self._newest = "0"
        """What a list must be as new as; see list_query."""
        self._stop = threading.Event()
        self._loop = watch(f"watch of {path}")
        self._backoff = retry_pauses(CALM)
        self._thread = threading.Thread(target=self._run, name="api-policy", daemon=True)

    @property
    def items(self) -> dict[Key, T] | None:
        """What is kept of all objects, for any thread; None before the first list."""
        with self._mutex:
            return None if self._items is None else dict(self._items)

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
        if self._stop.is_set():
            return
        forbidden = isinstance(error, ApiError) and error.status == FORBIDDEN
        hint = f": {_GRANT}" if forbidden else ""
        self.fault = f"{error}{hint}" if isinstance(error, SourceError) else repr(error)
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
                self._list_and_watch(api)
        finally:
            self._api = None
            api.close()

    def _list_and_watch(self, api: Api) -> None:
        is_fresh = not self._position
        if is_fresh:
            self._list(api)
        elif api.is_behind(self._path, self._position):
            self._newest = self._position = ""
            raise SourceError(RESTORED)
        try:
            self._watch(api)
        except BadResponse:
            self._position = ""  # else the same would come again
            raise
        except ApiError as error:
            if error.status == GONE:
                self._newest, self._position = "" if is_fresh else self._position, ""
            raise

    def _list(self, api: Api) -> None:
        query = {**self._query, **list_query(self._newest)}
        try:
            found, self._position = api.stream_list(self._path, query, self._parse_listed, SILENCE)
        except ApiError as error:
            if error.status in (GONE, TIMEOUT):
                self._newest = ""
            raise
        kept = dict(each for each in found if each is not None)
        with self._mutex:
            self._items = {key: item for key, item in kept.items() if item is not None}
        self.fault = ""
        self._changed(0)

    def _parse_listed(self, thing: Any) -> Any:
        self._loop.beat(PATIENCE)
        return self._parse(thing)

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
            if event.kind in CHANGES and (kept := self._parse(event.thing)):
                self._put(*kept, is_gone=event.kind == "DELETED")
            self._position = find_position(event.thing) or self._position

    def _put(self, key: Key, item: T | None, *, is_gone: bool) -> None:
        with self._mutex:
            items = self._items = self._items or {}
            if is_gone or item is None:
                items.pop(key, None)
            else:
                items[key] = item
        self._changed(1)
