"""Policies of a Kubernetes cluster, at little cost to its API server.

All that a node of a cluster without policies follows is NetworkPolicies. With the first one come
namespaces and the pods of this node; and, for as long as policies that select one of these name
them, the pods of other nodes, by their namespace and labels.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.model import SourceActivity
from daemon.policy.fields import UnusableField
from daemon.policy.model import (
    EVERYBODY,
    Facts,
    Key,
    NamespaceFacts,
    PodFacts,
    PodPeers,
    Policy,
    key_of,
    parse_namespace_facts,
    parse_pod_facts,
    parse_policy,
)
from daemon.sources.kubernetes.reflector import Reflector
from daemon.watchdog import Watch, unwatched

T = TypeVar("T")

NAMESPACES_MAX = 8
"""Namespaces that a peer's pods are followed in one by one; of more, those of all together."""
WATCHES_MAX = 64
"""Watches of peers. Each is a connection; of more, each has all pods of a namespace."""
_SELECTOR_MAX = 1000
"""Characters of a selector that a URL has room for."""
_POLICIES = "/apis/networking.k8s.io/v1/networkpolicies"
_NAMESPACES, _PODS = "/api/v1/namespaces", "/api/v1/pods"
_OWN = "own"
_WATCHED = ("policies", "namespaces", _OWN)


class PeerWatch(NamedTuple):
    """Pods of other nodes that are followed together: by namespace and labels; empty for all."""

    namespace: str = ""
    selector: str = ""

    @property
    def path(self) -> str:
        """Where the API has them."""
        space = quote(self.namespace, safe="")
        return f"{_NAMESPACES}/{space}/pods" if space else _PODS

    @property
    def query(self) -> dict[str, str]:
        """What the API is asked for."""
        return {"labelSelector": self.selector} if self.selector else {}

    @property
    def wider(self) -> tuple[PeerWatch, ...]:
        """Those that contain them."""
        found = PeerWatch(self.namespace), PeerWatch("", self.selector), PeerWatch()
        return tuple(each for each in found if each != self)


class KubernetesSource:
    """A PolicySource of the cluster that node is one of.

    names_pods: no; a pod that the API does not describe yet is not known.
    """

    names_pods = False

    def __init__(
        self, settings: KubernetesSettings, node: str, log: Log, watch: Watch = unwatched
    ) -> None:
        self._settings, self._node, self._log, self._watch = settings, node, log, watch
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._mutex = threading.Lock()
        self._fresh = False
        self.activity = SourceActivity()
        self._policies: _Table[Policy] = _Table()
        self._namespaces: _Table[NamespaceFacts] = _Table()
        self._pods: dict[str, _Table[PodFacts]] = {}
        self._following: dict[str, Reflector] = {}

    @property
    def fault(self) -> str:
        """Why its facts may be old."""
        return next((r.fault for r in [*self._following.values()] if r.fault), "")

    def start(self) -> None:
        """Follow policies; the rest as they ask for it."""
        self._follow("policies", _POLICIES, {}, self._policies, parse_policy)

    def fileno(self) -> int:
        """Readable when there may be new facts."""
        return self._wakeup

    def close(self) -> None:
        """End."""
        for reflector in self._following.values():
            reflector.stop()
        os.close(self._wakeup)

    def take(self) -> Facts | None:
        """The facts, None where nothing changed, or not all that matters was received yet."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        with self._mutex:
            fresh, self._fresh = self._fresh, False
            facts = self._facts()
        if not fresh or not self._policies.is_whole:
            return None
        self._follow_for(facts)
        if not facts.policies:
            return Facts()
        return facts if all(table.is_whole for table in self._tables()) else None

    def _tables(self) -> list[_Table[Any]]:
        return [self._policies, self._namespaces, *self._pods.values()]

    def _facts(self) -> Facts:
        pods = {k: p for table in [*self._pods.values()] for k, p in table.items.items()}
        namespaces = {n.name: n for n in self._namespaces.items.values()}
        return Facts(dict(self._policies.items), namespaces, pods)

    def _follow_for(self, facts: Facts) -> None:
        """Follow what the policies ask for, and nothing else."""
        wanted: dict[str, tuple[str, dict[str, str]]] = {}
        if facts.policies:
            own = {"fieldSelector": f"spec.nodeName={self._node}"}
            wanted = {_OWN: (_PODS, own)}
            wanted |= {str(p): (p.path, p.query) for p in merge(self._peers(facts))}
            self._follow("namespaces", _NAMESPACES, {}, self._namespaces, parse_namespace_facts)
        for name in self._pods.keys() - wanted.keys():
            self._end(name)
        for name, (path, query) in wanted.items():
            if name not in self._pods:
                self._pods[name] = _Table()
                self._follow(name, path, query, self._pods[name], parse_pod_facts)
        if not facts.policies:
            self._end("namespaces")

    def _peers(self, facts: Facts) -> set[PeerWatch]:
        """The pods that policies of this node's pods name."""
        own: dict[str, list[PodFacts]] = defaultdict(list)
        for pod in [*self._pods[_OWN].items.values()] if _OWN in self._pods else ():
            own[pod.namespace].append(pod)
        return {
            found
            for policy in facts.policies.values()
            if any(policy.pods.matches(pod.labels) for pod in own.get(policy.namespace, ()))
            for peers in _peers_of(policy)
            for found in _resolve(facts, policy, peers)
        }

    def _follow(
        self, name: str, path: str, query: Mapping[str, str], table: _Table[Any], parse: Any
    ) -> None:
        if name in self._following:
            return

        def replaced(things: list[Any]) -> None:
            with self._mutex:
                table.replace(things)
                self._wake()

        def changed(thing: Any, gone: bool) -> None:
            with self._mutex:
                self.activity = replace(self.activity, events=self.activity.events + 1)
                table.change(thing, gone)
                self._wake()

        def received(size: int) -> None:
            with self._mutex:
                self.activity = replace(self.activity, bytes=self.activity.bytes + size)

        def trim(thing: Any) -> Any:
            try:
                key = key_of(thing)
                return key, parse(thing)
            except (UnusableField, AttributeError) as error:
                self._log.debug(f"{path}: an object is left out: {error}")
                return None

        # Namespaces come and go, and the watchdog keeps every name.
        watch = self._watch if name in _WATCHED else unwatched
        self._following[name] = made = Reflector(
            self._settings, path, query, trim, replaced, changed, self._log, received, watch
        )
        made.start()

    def _end(self, name: str) -> None:
        if reflector := self._following.pop(name, None):
            reflector.stop()
        self._pods.pop(name, None)
        if name == "namespaces":
            self._namespaces = _Table()

    def _wake(self) -> None:
        self._fresh = True
        os.eventfd_write(self._wakeup, 1)


class _Table(Generic[T]):
    """What one reflector passed on. is_whole: whether a list has been received."""

    def __init__(self) -> None:
        self.is_whole = False
        self.items: dict[Key, T] = {}

    def replace(self, things: Iterable[tuple[Key, T | None]]) -> None:
        """Take all there is."""
        self.items = {key: item for key, item in things if item is not None}
        self.is_whole = True

    def change(self, thing: tuple[Key, T | None], gone: bool) -> None:
        """Take one that changed."""
        key, item = thing
        if gone or item is None:
            self.items.pop(key, None)
        else:
            self.items[key] = item


def _peers_of(policy: Policy) -> Iterable[PodPeers]:
    for rules in policy.rules.values():
        for rule in rules:
            yield from (peer for peer in rule.peers if isinstance(peer, PodPeers))
    # The number of a port that egress names is that of each pod that may be its target.
    if any(p.name for r in policy.rules.get("egress", ()) if not r.peers for p in r.ports):
        yield EVERYBODY


def _resolve(facts: Facts, policy: Policy, peers: PodPeers) -> Iterable[PeerWatch]:
    selector = peers.pods.query
    if len(selector) > _SELECTOR_MAX:
        selector = ""
    if peers.namespaces is None:
        return [PeerWatch(policy.namespace, selector)]
    wanted = peers.namespaces
    names = [n for n in facts.namespaces if wanted.matches(facts.labels_of(n))]
    return (
        [PeerWatch(n, selector) for n in names]
        if len(names) <= NAMESPACES_MAX
        else [PeerWatch("", selector)]
    )


def merge(peers: set[PeerWatch]) -> set[PeerWatch]:
    """What is followed: nothing that other watches have, too, and no more than WATCHES_MAX."""
    for widen in (lambda p: p, lambda p: PeerWatch(p.namespace), lambda _p: PeerWatch()):
        wide = {widen(p) for p in peers}
        found = {p for p in wide if wide.isdisjoint(p.wider)}
        if len(found) <= WATCHES_MAX:
            break
    return found
