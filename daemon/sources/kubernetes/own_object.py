"""This node in the API: its Node, and the NodeNetwork by which the other daemons know it.

The Node is watched alone, as kubelet and kube-proxy do. The API server finds the watches of a Node
by its name (kubernetes, registry/core/node/strategy.go, NodeNameTriggerFunc), so the heartbeats of
other nodes cost nothing here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.sources.http import BadResponse
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.cluster_view import ClusterView
from daemon.sources.kubernetes.events import CHANGES, parse_event
from daemon.sources.kubernetes.objects import (
    NODES,
    NodeRecord,
    UnusableObject,
    is_rendered,
    objects_path,
    parse_node_record,
    render,
    version_of,
)
from daemon.sources.own_address import OwnAddress
from daemon.sources.remote import SourceError
from kernel.model import IPNetwork

MANAGER = "podwired"
"""The field manager of server-side apply."""
SILENCE = 180.0
"""Seconds without a byte after which a watch counts as dead; the API sends a bookmark each minute
(apiserver, cacher.go, bookmarkFrequency)."""
PATIENCE = SILENCE + 180.0
"""Seconds that a thread may take without a byte: a silent watch, then a request that first runs a
credentials plugin."""
_WATCH_SECONDS = 1800, 3600
_UNKNOWN = object()
_NO_CIDRS = "has no podCIDRs yet: does kube-controller-manager run with --allocate-node-cidrs?"

Trouble = Callable[[str, str], None]


class OwnObject:
    """Follows the Node, in one thread, and writes the NodeNetwork, in another one.

    ranges: contain all pod CIDRs.
    trouble: takes what is wrong with the one ("node") and the other ("object"), or "" for nothing.
    """

    def __init__(
        self,
        me: str,
        settings: KubernetesSettings,
        ranges: tuple[IPNetwork, ...],
        view: ClusterView,
        log: Log,
        trouble: Trouble,
    ) -> None:
        self.path = f"{objects_path(settings.namespace)}/{me}"
        self._me, self._settings, self._ranges = me, settings, ranges
        self._own_address = OwnAddress(settings.node_addresses, log)
        self._view, self._log, self._trouble = view, log, trouble
        self._selector = {"fieldSelector": f"metadata.name={me}"}
        self._desired: dict[str, Any] | None = None
        self._written: dict[str, Any] | None = None
        self._observed: Any = _UNKNOWN
        self._version = "", 0

    @property
    def is_published(self) -> bool:
        """Whether the object is known to be as desired."""
        return self._desired is not None and is_rendered(self._observed, self._desired)

    @property
    def must_publish(self) -> bool:
        """Whether the object is known to be different from what is desired."""
        is_known = self._observed is not _UNKNOWN
        return self._desired is not None and is_known and not self.is_published

    # -- the Node

    def read_node(self, api: Api) -> str:
        """Read the Node; from where a watch continues. Raises SourceError."""
        try:
            nodes, position = api.get_list(NODES, self._selector)
        except ApiError as error:
            self._trouble("node", str(error))
            raise
        self._take_node(nodes[0] if nodes else None, api.server)
        return position

    def watch_node(self, api: Api, position: str, changed: Callable[[], None]) -> None:
        """Take each change of the Node, until the watch ends. Raises SourceError."""
        query = watch_query(position) | self._selector
        with api.watch(NODES, query, SILENCE) as batches:
            for line in (line for batch in batches for line in batch):
                try:
                    event = parse_event(line, f"the watch of Node {self._me}")
                except UnusableObject as error:
                    raise BadResponse(f"an event of Node {self._me} {error}") from error
                if event.kind in CHANGES:
                    thing = None if event.kind == "DELETED" else event.thing
                    self._take_node(thing, api.server)
                    changed()

    def _take_node(self, thing: object, server: str) -> None:
        """The Node, None where there is none. server: the API's URL."""
        if thing is None:
            self._desired = None
            hint = "`node` in podwired.yaml must be the Node's name"
            self._trouble("node", f"the cluster has no Node {self._me}: {hint}")
            return
        try:
            record = parse_node_record(thing, self._ranges)
            if record.name != self._me:
                raise UnusableObject(f"the API answers with {record.name}")
        except UnusableObject as error:
            self._trouble("node", f"Node {self._me}: {error}")
            return
        self._take(replace(record, addresses=self._own_address.choose(record.internal, server)))

    def _take(self, record: NodeRecord) -> None:
        why = "; ".join(record.left_out)
        if not record.addresses:
            why = self._explain_no_address(record)
        elif not record.pod_cidrs:
            why = why or _NO_CIDRS
        self._trouble("node", f"Node {self._me} {why}" if why else "")
        if record.addresses:
            self._view.put_own(record)
        namespace, is_complete = self._settings.namespace, record.addresses and record.pod_cidrs
        self._desired = render(record.node, record.uid, namespace) if is_complete else None

    def _explain_no_address(self, record: NodeRecord) -> str:
        if record.internal:
            among = " ".join(map(str, self._settings.node_addresses))
            found = ", ".join(map(str, record.internal))
            return f"has no InternalIP in source.kubernetes.nodeAddresses, {among}: it has {found}"
        found = ", ".join(map(str, record.external))
        only = f", only ExternalIP {found}, which nodes do not use: set kubelet's --node-ip"
        return f"has no InternalIP address{only if found else ''}"

    # -- the NodeNetwork

    def read(self, api: Api) -> None:
        """Read the object. Raises SourceError."""
        self.receive(api.find(self.path), is_current=True)

    def receive(self, thing: Any, *, is_current: bool) -> None:
        """Take the object, None where there is none.

        is_current: whether it was read just now. An event may be of before the last write.
        """
        version, was_published = version_of(thing), self.is_published
        if not is_current and version[0] == self._version[0] and version[1] < self._version[1]:
            return
        self._observed, self._version = thing, version
        if self.is_published:  # also where the response to the write was lost
            self._trouble("object", "")
        elif was_published:
            what = "changed" if thing else "deleted"
            why = f"this node's NodeNetwork was {what} by another client; it is written again"
            self._log.warning(why, object=self.path)

    def publish(self, api: Api) -> bool:
        """Write the object; whether it is another one than was written last. Raises SourceError."""
        desired = self._desired
        if desired is None:
            return False
        try:
            self._observed = self._write(api, desired)
        except SourceError as error:
            self._trouble("object", f"this node is not published: {error}")
            raise
        self._version = version_of(self._observed)
        self._trouble("object", "")
        self._log.info("this node is published", object=self.path)
        written, self._written = self._written, desired
        return written != desired

    def _write(self, api: Api, desired: Mapping[str, Any]) -> Any:
        """The object as it is stored then. Raises SourceError."""
        why = "the API stores another object than was written"
        why = f"{why}: is the CRD that of packaging/kubernetes/crd.yaml?"
        try:
            thing = api.apply(self.path, desired, MANAGER)
        except BadResponse as error:
            why = str(error)
        else:
            if is_rendered(thing, desired):
                return thing
        # Applying leaves what other managers own; without that the object must be made again.
        api.delete(self.path)
        self._observed = None
        again = f"{why}; it is deleted and written again"
        self._log.warning(again, object=self.path)
        raise SourceError(again)


def list_query(newest: str) -> dict[str, str]:
    """The query of a list that is as new as a resourceVersion.

    "0": as any that the API server has cached; empty: as the newest, for which it asks etcd.
    """
    query = {"resourceVersion": newest} if newest else {}
    if newest not in ("", "0"):
        query["resourceVersionMatch"] = "NotOlderThan"
    return query


def watch_query(position: str) -> dict[str, str]:
    """The query of a watch from a resourceVersion on.

    It lasts a random time, so that not all daemons come back at once.
    """
    seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - no secret
    bookmarks = {"allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
    return {"resourceVersion": position, **bookmarks}
