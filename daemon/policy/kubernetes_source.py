"""Policies of a Kubernetes cluster, at little cost to its API server.

All that a node of a cluster without policies follows is NetworkPolicies. With the first one come
namespaces and the pods of this node; and, for as long as policies that select one of these name
them, the pods of other nodes, by their namespace and labels.
"""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import quote

from daemon.config.schema import KubernetesSettings
from daemon.liveness.watchdog import Watch, unwatched
from daemon.log import Log
from daemon.model import SourceActivity
from daemon.policy.model import EVERYBODY, Facts, Key, PodFacts, PodPeers, Policy
from daemon.policy.object_fields import UnusableField
from daemon.policy.objects import key_of, parse_namespace_facts, parse_pod_facts, parse_policy
from daemon.policy.selectors import Selector
from daemon.sources.kubernetes.reflector import Reflector

NAMESPACES_MAX = 8
"""Namespaces that a peer's pods are followed in one by one; of more, those of all together."""
WATCHES_MAX = 64
"""Watches of peers. Each is a connection; of more, each has all pods of a namespace."""
_SELECTOR_MAX = 1000
"""Characters of a selector that a URL has room for."""
_LABEL_VALUE = re.compile(r"(?=.{0,63}\Z)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
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
        self.activity = SourceActivity()
        self._following: dict[str, Reflector[Any]] = {}

    @property
    def fault(self) -> str:
        """Why its facts may be old."""
        return next((r.fault for r in self._following.values() if r.fault), "")

    def start(self) -> None:
        """Follow policies; the rest as they ask for it."""
        self._follow("policies", _POLICIES, {}, parse_policy)

    def fileno(self) -> int:
        """Readable when there may be new facts."""
        return self._wakeup

    def close(self) -> None:
        """End."""
        for reflector in self._following.values():
            reflector.stop()
        with self._mutex:  # a reflector that waits for an answer is not waited for
            os.close(self._wakeup)
            self._wakeup = -1

    def take(self) -> Facts | None:
        """The facts, None where nothing changed, or not all that matters was received yet."""
        try:
            os.eventfd_read(self._wakeup)
        except BlockingIOError:
            return None
        found = {name: reflector.items for name, reflector in self._following.items()}
        policies, namespaces = found.pop("policies"), found.pop("namespaces", None)
        if policies is None:
            return None
        pods = {key: pod for each in found.values() for key, pod in (each or {}).items()}
        by_name = {each.name: each for each in (namespaces or {}).values()}
        facts = Facts(policies, by_name, pods)
        self._follow_for(facts, found.get(_OWN) or {})
        if not policies:
            return Facts()
        found |= {"policies": policies, "namespaces": namespaces}
        return None if any(found.get(name) is None for name in self._following) else facts

    def _follow_for(self, facts: Facts, own: Mapping[Key, PodFacts]) -> None:
        """Follow what the policies ask for, and nothing else. own: the pods of this node."""
        wanted: dict[str, tuple[str, Mapping[str, str], Any]] = {}
        if facts.policies:
            selector = {"fieldSelector": f"spec.nodeName={self._node}"}
            wanted["namespaces"] = _NAMESPACES, {}, parse_namespace_facts
            wanted[_OWN] = _PODS, selector, parse_pod_facts
            for peers in merge(_peers(facts, own)):
                wanted[str(peers)] = peers.path, peers.query, parse_pod_facts
        for name in self._following.keys() - wanted.keys() - {"policies"}:
            self._following.pop(name).stop()
        for name, (path, query, parse) in wanted.items():
            if name not in self._following:
                self._follow(name, path, query, parse)

    def _follow(self, name: str, path: str, query: Mapping[str, str], parse: Any) -> None:
        def parse_item(thing: Any) -> tuple[Key, Any] | None:
            try:
                return key_of(thing), parse(thing)
            except (UnusableField, AttributeError) as error:
                self._log.debug(f"{path}: an object is left out: {error}")
                return None

        # Namespaces come and go, and the watchdog keeps every name.
        watch = self._watch if name in _WATCHED else unwatched
        self._following[name] = made = Reflector(
            self._settings,
            path,
            query,
            parse_item,
            self._note_changes,
            self._note_bytes,
            self._log,
            watch,
        )
        made.start()

    def _note_changes(self, count: int) -> None:
        with self._mutex:
            self.activity = replace(self.activity, events=self.activity.events + count)
            if self._wakeup >= 0:
                os.eventfd_write(self._wakeup, 1)

    def _note_bytes(self, size: int) -> None:
        with self._mutex:
            self.activity = replace(self.activity, bytes=self.activity.bytes + size)


def _peers(facts: Facts, own: Mapping[Key, PodFacts]) -> set[PeerWatch]:
    """The pods that policies of this node's pods name."""
    by_namespace: dict[str, list[PodFacts]] = defaultdict(list)
    for pod in own.values():
        by_namespace[pod.namespace].append(pod)
    return {
        found
        for policy in facts.policies.values()
        if any(policy.pods.matches(pod.labels) for pod in by_namespace[policy.namespace])
        for peers in _peers_of(policy)
        for found in _resolve(facts, policy, peers)
    }


def _peers_of(policy: Policy) -> Iterable[PodPeers]:
    for rules in policy.rules.values():
        for rule in rules:
            yield from (peer for peer in rule.peers if isinstance(peer, PodPeers))
    # The number of a port that egress names is that of each pod that may be its target.
    if any(p.name for r in policy.rules.get("egress", ()) if not r.peers for p in r.ports):
        yield EVERYBODY


def _resolve(facts: Facts, policy: Policy, peers: PodPeers) -> Iterable[PeerWatch]:
    selector = query_of(peers.pods)
    if selector is None:
        return ()
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


def query_of(selector: Selector) -> str | None:
    """A selector as the API takes it; None where it matches no pod.

    It refuses values that no label can have. Policies that were made before Kubernetes refused them
    there may name some, and keep them (apimachinery, AllowInvalidLabelValueInSelector).
    """
    found = []
    for each in selector.requirements:
        values = frozenset(value for value in each.values if _LABEL_VALUE.fullmatch(value))
        if values or not each.values:
            found.append(replace(each, values=values))
        elif each.operator == "In":
            return None
    return Selector(tuple(found)).query


def merge(peers: set[PeerWatch]) -> set[PeerWatch]:
    """What is followed: nothing that other watches have, too, and no more than WATCHES_MAX."""
    for widen in (lambda p: p, lambda p: PeerWatch(p.namespace), lambda _p: PeerWatch()):
        wide = {widen(p) for p in peers}
        found = {p for p in wide if wide.isdisjoint(p.wider)}
        if len(found) <= WATCHES_MAX:
            break
    return found
