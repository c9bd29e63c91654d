"""Following a cluster through the Kubernetes API: one list, then a watch that goes on for ever."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemon.config import SUCCESSION
from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.cluster_view import Own, Picture
from daemon.sources.kubernetes.events import Expired, Restored, WatchFailed
from daemon.sources.kubernetes.own_object import Presence, objects_path
from daemon.sources.kubernetes.session import require_library
from daemon.sources.kubernetes.stream import Lines
from daemon.sources.kubernetes.succession import Succession
from daemon.sources.kubernetes.worker import Chores
from daemon.sources.remote import Feed, SourceError

SILENCE = 180.0
"""Seconds without a word after which a watch counts as dead; the API sends a bookmark each minute
(apiserver, cacher.go, bookmarkFrequency)."""
WATCH_SECONDS = 1800.0, 3600.0
"""How long a watch may last; spread, so that not all daemons come back at once."""
YOUNG_SECONDS = 120.0
"""A Node made so lately came by itself: its daemon need not wait for a turn among all."""
YOUNG_SPREAD = 5.0
_SHORT = 5.0
_EXPIRED = "the Kubernetes API answers the watch of what it has just listed with 410, Expired"
_FORGETS = "the Kubernetes API forgets again and again what it has just said"
_GONE, _TIMEOUT, _FORBIDDEN, _NOT_FOUND = 410, 504, 403, 404
_HINTS = {
    _NOT_FOUND: "is packaging/kubernetes/crd.yaml applied?",
    _FORBIDDEN: "is packaging/kubernetes/rbac.yaml applied, for this namespace?",
}


@dataclass(slots=True)
class _Parts:
    """What lives as long as the client does, whatever becomes of connections."""

    picture: Picture
    presence: Presence
    chores: Chores


class KubernetesClient:
    """A daemon.sources.remote.Client of the Kubernetes API, for the node of that name."""

    def __init__(
        self, settings: KubernetesSettings, *, node: str, data_dir: Path, log: Log
    ) -> None:
        self._settings, self._me, self._log = settings, node, log
        self._secret = data_dir / SUCCESSION
        self._api: Api | None = None
        self._parts: _Parts | None = None
        self._is_in = False
        self._exposed: set[Path] = set()
        self._expired = -_SHORT
        self._newest = "0"
        """What a list must be as new as; 0 = any that the API has at hand; empty = the newest."""

    @property
    def identity(self) -> str:
        """The API's place, the namespace, the ranges, and whose view it is."""
        env, settings = os.environ, self._settings
        host = f"{env.get('KUBERNETES_SERVICE_HOST')}:{env.get('KUBERNETES_SERVICE_PORT')}"
        ranges = ",".join(map(str, settings.cluster_cidrs))
        place = settings.kubeconfig or host
        return f"kubernetes {place} {settings.namespace} {ranges} {self._me}"

    def check(self) -> None:
        """Whether library and kubeconfig are right. Raises SourceError.

        A pod's service account is there in the pod alone.
        """
        require_library()
        if self._settings.kubeconfig is not None:
            self._open(lambda _: None).close()

    def leave(self) -> Sequence[str]:
        """Delete this node's object."""
        api = Api(self._settings, lambda _: None)
        try:
            api.delete(f"{objects_path(self._settings.namespace)}/{self._me}")
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return ()
            raise
        finally:
            api.close()
        return (f"NodeNetwork {self._settings.namespace}/{self._me}",)

    def interrupt(self) -> None:
        """End the watch."""
        api = self._api
        if api is not None:
            api.interrupt()

    def follow(self, feed: Feed) -> None:
        """List and watch until the feed ends. Raises SourceError where that does not work."""
        parts = self._parts = self._parts or self._assemble(feed)
        api = self._api = self._open(feed.count)
        try:
            self._enter(feed, api, parts)
            parts.chores.start(api)
            while not feed.stopping:
                self._go_on(feed, api, parts)
        except ApiError as error:
            hint = _HINTS.get(error.status)
            raise SourceError(f"{error}; {hint}" if hint else str(error)) from error
        finally:
            parts.chores.stop()
            self._api = None
            api.close()

    def _open(self, received: Callable[[int], None]) -> Api:
        api = Api(self._settings, received)
        for path in (*api.exposed,) if self._settings.kubeconfig else ():
            if path not in self._exposed:
                self._exposed.add(path)
                why = "lets others than its owner at what this node is to the Kubernetes API"
                self._log.warning(f"{path} {why}: chmod 600 {path}")
        return api

    def _assemble(self, feed: Feed) -> _Parts:
        ranges, namespace = self._settings.cluster_cidrs, self._settings.namespace
        chores: list[Chores] = []

        def on_own(own: Own) -> None:
            chores[0].hear(own)

        picture = Picture(self._me, ranges, feed, self._log, on_own)
        succession = Succession(self._secret, self._me, self._log)
        presence = Presence(
            self._me, namespace, ranges, picture, succession, self._log, feed.trouble
        )
        chores.append(Chores(presence, picture, ranges, self._log, feed.trouble))
        return _Parts(picture, presence, chores[0])

    # -- the start

    def _enter(self, feed: Feed, api: Api, parts: _Parts) -> None:
        """Once: wait for this node's turn, read its Node, go on where an earlier daemon was."""
        if self._is_in:
            return
        spread, known = self._settings.start_spread, feed.known
        first = self._turn(len(known.nodes)) / 4 if known else min(spread, YOUNG_SPREAD)
        self._rest(feed, first)
        if feed.stopping:
            return
        parts.chores.read_own(api)
        self._is_in, feed.known = True, None
        if known and parts.picture.resume(known):
            mine = next((node for node in known.nodes if node.name == self._me), None)
            if not parts.presence.assume(mine):
                # A list says what the object is before it is written.
                self._newest, parts.picture.position = parts.picture.position, ""
            return
        age = parts.presence.age()
        if age is None or age > YOUNG_SECONDS:
            self._rest(feed, self._turn(len(known.nodes)) if known else spread)

    def _turn(self, nodes: int) -> float:
        """Seconds over which as many daemons may spread, so that some 100 come in each."""
        return min(self._settings.start_spread, nodes / 100)

    def _rest(self, feed: Feed, most: float) -> None:
        if most > 0:
            feed.wait(random.uniform(0, most))  # noqa: S311 - no secret

    # -- list and watch

    def _go_on(self, feed: Feed, api: Api, parts: _Parts) -> None:
        fresh = not parts.picture.position
        try:
            if fresh:
                self._list(feed, api, parts)
            else:
                parts.picture.compare(api.count(objects_path(self._settings.namespace)))
            began = time.monotonic()
            self._watch(feed, api, parts)
        except Expired as error:
            self._log.info("the API does not know the watch's position any more")
            known = "" if fresh or isinstance(error, Restored) else parts.picture.position or "0"
            self._newest, parts.picture.position = known, ""
            last, self._expired = self._expired, time.monotonic()
            if fresh and self._expired - began < _SHORT:
                # Of its own list: another one at once would not be better.
                raise SourceError(_EXPIRED) from error
            if self._expired - last < _SHORT:
                raise SourceError(_FORGETS) from error
            self._rest(feed, self._turn(parts.picture.size))

    def _list(self, feed: Feed, api: Api, parts: _Parts) -> None:
        query = {"resourceVersion": self._newest} if self._newest else {}
        if self._newest not in ("", "0"):
            query["resourceVersionMatch"] = "NotOlderThan"
        try:
            parts.picture.replace(api.items(objects_path(self._settings.namespace), query))
        except ApiError as error:
            if error.status in (_GONE, _TIMEOUT) and self._newest:
                # Also where the cluster was restored from a backup, and counts from there again.
                self._newest = ""
            raise
        feed.heard()
        parts.chores.wake()

    def _watch(self, feed: Feed, api: Api, parts: _Parts) -> None:
        began = time.monotonic()
        try:
            heard = self._listen(feed, api, parts)
        except ApiError as error:
            if error.status == _GONE:
                raise Expired from error
            raise
        except SourceError as error:
            if time.monotonic() - began < _SHORT or feed.stopping:
                raise
            # A connection ends now and then; whether the API is away shows when it is asked again.
            self._log.debug(f"the watch ended: {error}")
        except WatchFailed as error:
            raise SourceError(str(error)) from error
        else:
            if not heard and time.monotonic() - began < _SHORT and not feed.stopping:
                raise SourceError("the Kubernetes API ends watches at once")
        self._rest(feed, min(1 + parts.picture.size / 1000, self._settings.start_spread))

    def _listen(self, feed: Feed, api: Api, parts: _Parts) -> bool:
        """Hear what one watch says, to its end; whether it was anything."""
        query = {
            "resourceVersion": parts.picture.position,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(random.uniform(*WATCH_SECONDS))),  # noqa: S311
        }
        lines, heard = Lines(), False
        path = objects_path(self._settings.namespace)
        with api.watch(path, query, SILENCE) as chunks:
            feed.heard()
            for chunk in chunks:
                heard = True
                changes = parts.picture.events(lines.feed(chunk))
                feed.heard(len(chunk), changes)
                if parts.picture.questions:
                    parts.chores.wake()
                if feed.stopping:
                    break
        return heard
