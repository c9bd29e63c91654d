"""Policies of a Kubernetes cluster: what a node learns, and what it asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from daemon.policy.kubernetes_source import KubernetesSource
from daemon.policy.model import Facts
from tests.cluster.apiserver import ApiServer
from tests.cluster.conftest import MakeFollower
from tests.cluster.follower import Follower, eventually
from tests.cluster.impostor import Answer, Connection, Impostor, Stream, event, listed, said
from tests.cluster.rest import MERGE, Object, place_of

BOOKMARK = event("BOOKMARK", {"metadata": {"resourceVersion": "1001"}})
GONE = said({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}, 410)


class Learner:
    """A source, and the last facts that it gave."""

    def __init__(self, follower: Follower) -> None:
        follower.rotate()
        settings = follower.settings()
        self._make = partial(KubernetesSource, settings, follower.name, follower.log)
        self.restart()

    def restart(self) -> None:
        """Know nothing, and learn it anew."""
        self.source = self._make()
        self.source.start()
        self.facts = Facts()

    def learn(self) -> Facts:
        """What it knows by now."""
        self.facts = self.source.take() or self.facts
        return self.facts

    def until(self, check: Callable[[Facts], object]) -> None:
        """Wait until it knows that."""
        eventually(lambda: check(self.learn()) or (self.source.fault, self.facts))


def namespace(name: str, **labels: str) -> Object:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def pod(space: str, name: str, node: str, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": space, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }


def policy(space: str, name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": space, "name": name},
        "spec": {"podSelector": {}, **spec},
    }


@pytest.fixture
def spaces(api: ApiServer) -> Iterator[None]:
    """Two namespaces with a pod on each of two nodes."""
    for name, team in (("pol-a", "a"), ("pol-b", "b")):
        api.admin.apply(namespace(name, team=team)).expect(200, 201)
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        api.admin.apply({**account, "metadata": {"name": "default", "namespace": name}})
        for node in ("n1", "n2"):
            api.admin.apply(pod(name, f"pod-{node}", node, app=node)).expect(200, 201)
    yield
    for name in ("pol-a", "pol-b"):
        for node in ("n1", "n2"):
            api.remove("Pod", f"pod-{node}", name)
        for each in ("first", "second"):
            api.remove("NetworkPolicy", each, name)


@pytest.fixture
def learner(api: ApiServer, spaces: None, follow: MakeFollower) -> Iterator[Learner]:
    follower = follow("n1", 1)
    made = Learner(follower)
    yield made
    made.source.close()


def asked(api: ApiServer) -> set[str]:
    """The paths that daemons have watched."""
    return {r.uri.partition("?")[0] for r in api.requests() if r.verb == "watch"}


def test_a_node_watches_what_policies_of_its_pods_need(api: ApiServer, learner: Learner) -> None:
    time.sleep(1)
    assert learner.learn() == Facts()
    paths = asked(api)
    assert [p for p in paths if "pods" in p or p.endswith("/namespaces")] == []

    # One that selects no pod of this node: pods of this node, and namespaces.
    api.admin.apply(policy("pol-b", "first", podSelector={"matchLabels": {"app": "n2"}}))
    learner.until(lambda facts: len(facts.policies) == 1)
    own = {("pol-a", "pod-n1"), ("pol-b", "pod-n1")}
    learner.until(lambda facts: set(facts.pods) >= own)
    facts = learner.facts
    assert all(name != "pod-n2" for _space, name in facts.pods)
    learner.until(lambda facts: facts.labels_of("pol-a").get("team") == "a")

    # One that selects a pod of this node, and names pods by namespace and label: these alone.
    peer = {
        "namespaceSelector": {"matchLabels": {"team": "b"}},
        "podSelector": {"matchLabels": {"app": "n2"}},
    }
    api.admin.apply(policy("pol-a", "second", ingress=[{"from": [peer]}])).expect(200, 201)
    learner.until(lambda facts: ("pol-b", "pod-n2") in facts.pods)
    assert ("pol-a", "pod-n2") not in learner.facts.pods
    other = place_of("Pod", "pol-b", "pod-n2")
    for label, is_peer in (("not", False), ("n2", True)):
        patch: Object = {"metadata": {"labels": {"app": label}}}
        api.admin.ask("PATCH", other, patch, kind=MERGE).expect(200)
        learner.until(lambda facts, there=is_peer: (("pol-b", "pod-n2") in facts.pods) == there)  # type: ignore[misc]

    # A label that changes is learnt; without a policy nothing but policies is known.
    path = place_of("Pod", "pol-a", "pod-n1")
    patch = {"metadata": {"labels": {"app": "new"}}}
    api.admin.ask("PATCH", path, patch, kind=MERGE).expect(200)
    learner.until(lambda facts: facts.pods["pol-a", "pod-n1"].labels["app"] == "new")
    for space, name in (("pol-a", "second"), ("pol-b", "first")):
        api.remove("NetworkPolicy", name, space)
    learner.until(lambda facts: facts == Facts())


def test_a_pod_of_any_size_hides_no_other(api: ApiServer, learner: Learner) -> None:
    """Of the largest one the API writes megabytes: six bytes for some characters."""
    api.admin.apply(policy("pol-a", "first", ingress=[])).expect(200, 201)
    learner.until(lambda facts: ("pol-a", "pod-n1") in facts.pods)
    large = pod("pol-b", "large", "n1")
    large["spec"]["containers"][0]["env"] = [{"name": "X", "value": "<" * 1_400_000}]
    try:
        for again in range(2):  # in an event, then in a list
            api.admin.apply(large).expect(200, 201)
            api.admin.apply(pod("pol-b", f"later-{again}", "n1")).expect(200, 201)
            learner.until(lambda facts, name=f"later-{again}": ("pol-b", name) in facts.pods)  # type: ignore[misc]
            assert ("pol-b", "large") in learner.facts.pods
            learner.source.close()
            learner.restart()
    finally:
        for name in ("large", "later-0", "later-1"):
            api.remove("Pod", name, "pol-b")


def test_policies_of_an_api_that_went_back_in_time_are_listed_anew(
    api: ApiServer, learner: Learner
) -> None:
    """Its etcd was restored from a backup: a watch from a time that never was sends nothing."""
    api.admin.apply(policy("pol-a", "first", ingress=[])).expect(200, 201)
    learner.until(lambda facts: len(facts.policies) == 1)
    reflector = learner.source._following["policies"]
    reflector._position = str(int(reflector._position) + 10_000_000)
    api.stop()
    api.start()
    api.admin.apply(policy("pol-a", "second", ingress=[])).expect(200, 201)
    learner.until(lambda facts: len(facts.policies) == 2)


@pytest.mark.parametrize(
    ("watches", "lists"),
    [
        # A watch that continues: no server's cache may answer of before. Of its own list: any.
        ([Stream((BOOKMARK,), ends=True), GONE], ["0", "1001"]),
        ([GONE], ["0", ""]),
    ],
)
def test_a_list_after_expiry_is_as_new_as_what_is_known(
    impostor: Impostor, one: Follower, watches: list[Answer], lists: list[str]
) -> None:
    seen = list[str]()

    def answer_list(connection: Connection) -> None:
        query = parse_qs(urlsplit(connection.path).query)
        newest = query.get("resourceVersion", [""])[0]
        assert query.get("resourceVersionMatch") == (["NotOlderThan"] if newest > "0" else None)
        seen.append(newest)
        listed()(connection)

    def answer_watch(connection: Connection) -> None:
        if not watches:
            return Stream()(connection)
        time.sleep(0 if len(watches) == 1 else 0.6)
        return watches.pop(0)(connection)

    impostor.set(list=answer_list, watch=answer_watch, survey=listed(version="1001"))
    learner = Learner(one)
    try:
        eventually(lambda: seen == lists or (seen, learner.source.fault))
    finally:
        learner.source.close()


def test_what_is_known_stays_while_the_api_is_away(api: ApiServer, learner: Learner) -> None:
    api.admin.apply(policy("pol-a", "first", ingress=[])).expect(200, 201)
    learner.until(lambda facts: len(facts.policies) == 1)
    api.stop()
    try:
        eventually(lambda: learner.source.fault != "" or learner.learn())
        assert len(learner.learn().policies) == 1
    finally:
        api.start()
    api.admin.apply(policy("pol-a", "second", ingress=[])).expect(200, 201)
    learner.until(lambda facts: len(facts.policies) == 2)
