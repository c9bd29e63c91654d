"""Following a cluster through the Kubernetes API: one list, then a watch that never ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.sources.http import BadResponse
from daemon.sources.kubernetes.api import (
    FORBIDDEN,
    GONE,
    NOT_FOUND,
    RESTORED,
    TIMEOUT,
    Api,
    ApiError,
)
from daemon.sources.kubernetes.cluster_view import ClusterView, Inbox
from daemon.sources.kubernetes.objects import objects_path
from daemon.sources.kubernetes.own_object import (
    PATIENCE,
    SILENCE,
    OwnObject,
    list_query,
    watch_query,
)
from daemon.sources.kubernetes.pod_subnet import read_pod_subnet
from daemon.sources.kubernetes.retry import WATCH_PAUSES
from daemon.sources.kubernetes.worker import Worker
from daemon.sources.remote import Feed, SourceError
from kernel.model import IPNetwork

LISTS_PER_SECOND = 100
"""Of all daemons of a cluster that start together."""
WATCHES_PER_LIST = 2
"""A watch that continues costs the API that much less than a list."""
_SHORT = 5.0
_EXPIRED = "the Kubernetes API answers the watch of what it has just listed with 410, Expired"
_HINTS = {
    NOT_FOUND: "is packaging/kubernetes/crd.yaml applied?",
    FORBIDDEN: "is packaging/kubernetes/rbac.yaml applied, for this namespace?",
}


@dataclass(slots=True)
class _Parts:
    """What lives as long as the client does, whatever happens to connections."""

    view: ClusterView
    own: OwnObject
    worker: Worker


class KubernetesClient:
    """A daemon.sources.remote.Client of the Kubernetes API, for the node of that name."""

    def __init__(self, settings: KubernetesSettings, *, node: str, log: Log) -> None:
        self.pauses, self.patience = WATCH_PAUSES, PATIENCE
        self._settings, self._me, self._log = settings, node, log
        self._path = objects_path(settings.namespace)
        self._api: Api | None = None
        self._parts: _Parts | None = None
        self._has_started = False
        self._exposed: set[Path] = set()
        self._newest = "0"
        """What a list must be as new as; see list_query."""

    @property
    def identity(self) -> str:
        """The API's address, the namespace, the ranges, and the node whose view it is."""
        env, settings = os.environ, self._settings
        host = f"{env.get('KUBERNETES_SERVICE_HOST')}:{env.get('KUBERNETES_SERVICE_PORT')}"
        ranges = ",".join(map(str, settings.cluster_cidrs))
        place = settings.kubeconfig or host
        return f"kubernetes {place} {settings.namespace} {ranges} {self._me}"

    def check(self) -> None:
        """Check the kubeconfig. Raises SourceError.

        A pod's service account is there in the pod only.
        """
        if self._settings.kubeconfig is not None:
            self._open(lambda _: None).close()

    def leave(self) -> Sequence[str]:
        """Delete this node's object."""
        api = Api(self._settings, lambda _: None)
        try:
            api.delete(f"{self._path}/{self._me}")
        except ApiError as error:
            if error.status == NOT_FOUND:
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
        api = self._api = self._open(feed.count)
        try:
            parts = self._parts = self._parts or self._assemble(feed, self._read_ranges(api))
            self._work(feed, api, parts)
        except ApiError as error:
            hint = _HINTS.get(error.status)
            raise SourceError(f"{error}; {hint}" if hint else str(error)) from error
        finally:
            self._api = None
            api.close()

    def _work(self, feed: Feed, api: Api, parts: _Parts) -> None:
        try:
            if not self._has_started:
                self._has_started = self._start(feed, api, parts)
            parts.worker.start(api)
            while not feed.stopping:
                self._list_and_watch(feed, api, parts)
        finally:
            api.interrupt()
            parts.worker.stop()

    def _open(self, received: Callable[[int], None]) -> Api:
        api = Api(self._settings, received)
        for path in (*api.exposed,) if self._settings.kubeconfig else ():
            if path not in self._exposed:
                self._exposed.add(path)
                why = "lets others than its owner read this node's credentials"
                self._log.warning(f"{path} {why}: chmod 600 {path}")
        return api

    def _read_ranges(self, api: Api) -> tuple[IPNetwork, ...]:
        """What contains all pod CIDRs. Raises SourceError."""
        if self._settings.cluster_cidrs:
            return self._settings.cluster_cidrs
        ranges = read_pod_subnet(api)
        self._log.info("clusterCIDRs are kubeadm's podSubnet", ranges=" ".join(map(str, ranges)))
        return ranges

    def _assemble(self, feed: Feed, ranges: tuple[IPNetwork, ...]) -> _Parts:
        settings, log = self._settings, self._log
        if feed.known and feed.known.cluster_cidrs != ranges:
            feed.known = None  # a watch does not repeat what was outside of the former ones
        inbox: Inbox = SimpleQueue()
        view = ClusterView(self._me, ranges, feed, log, inbox)
        own = OwnObject(self._me, settings, ranges, view, log, feed.degraded)
        return _Parts(view, own, Worker(own, view, ranges, log, feed, inbox))

    # -- the start

    def _start(self, feed: Feed, api: Api, parts: _Parts) -> bool:
        """Wait in proportion to the cluster, and continue where an earlier daemon was.

        Returns whether that is done; not where the feed ends. Raises SourceError.
        """
        known = feed.known
        nodes = len(known.nodes) / WATCHES_PER_LIST if known else api.count(self._path)[0]
        feed.rest(nodes / LISTS_PER_SECOND)
        if feed.stopping:
            return False
        api.check_version()
        with suppress(ApiError):  # it is a fault already, and is tried again
            parts.own.read_node(api)
        if known:
            parts.own.read(api)  # a watch that continues reports its changes only
            if not parts.view.resume(known):
                feed.rest(len(known.nodes) / LISTS_PER_SECOND)
        feed.known = None
        return True

    # -- list and watch

    def _list_and_watch(self, feed: Feed, api: Api, parts: _Parts) -> None:
        view = parts.view
        is_fresh = not view.position
        if is_fresh:
            self._list(feed, api, parts)
        elif api.is_behind(self._path, view.position):
            self._newest = view.position = ""
            raise SourceError(RESTORED)
        began = time.monotonic()
        try:
            self._watch(feed, api, parts)
        except ApiError as error:
            if error.status != GONE:
                raise
            self._log.info("the API has no history from the watch's position on any more")
            self._newest, view.position = "" if is_fresh else view.position or "0", ""
            if is_fresh and time.monotonic() - began < _SHORT:
                # Of its own list: another one at once would not be better.
                raise SourceError(_EXPIRED) from error
            feed.rest(view.size / LISTS_PER_SECOND)

    def _list(self, feed: Feed, api: Api, parts: _Parts) -> None:
        try:
            query = list_query(self._newest)
            parts.view.replace(*api.get_list(self._path, query, parts.view.read_listed))
        except ApiError as error:
            if error.status in (GONE, TIMEOUT) and self._newest:
                # Also where the cluster was restored from a backup, and counts from there again.
                self._newest = ""
            raise
        feed.received()
        parts.worker.wake()

    def _watch(self, feed: Feed, api: Api, parts: _Parts) -> None:
        """Receive what one watch sends, to its end."""
        began = time.monotonic()
        try:
            with api.watch(self._path, watch_query(parts.view.position), SILENCE) as batches:
                feed.received()
                for lines in batches:
                    feed.received(parts.view.events(lines))
                    if parts.view.waiting:
                        parts.worker.wake()
                    if feed.stopping:
                        return
        except ApiError:
            raise
        except SourceError as error:
            if isinstance(error, BadResponse):
                parts.view.position = ""  # else the same would come again
            if time.monotonic() - began < _SHORT or feed.stopping:
                raise
            # A connection ends now and then; the next request shows whether the API is away.
            self._log.debug(f"the watch ended: {error}")
        if time.monotonic() - began < _SHORT:
            raise SourceError("the Kubernetes API ends watches at once")
        feed.rest(1 + parts.view.size / 1000)
