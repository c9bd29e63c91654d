"""When the worker does what: never in a loop, and not all daemons at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.model import Node
from daemon.sources.cache import open_cache
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.cluster_view import ClusterView, Inbox, Received
from daemon.sources.kubernetes.own_object import OwnObject
from daemon.sources.kubernetes.worker import LOOKUPS_PER_SECOND, Worker, lookup_pause
from daemon.sources.remote import Feed, SourceError
from tests.cluster.follower import eventually

RANGES = (ip_network("10.244.0.0/16"),)


def node(name: str, number: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "spec": {"podCIDRs": [f"10.244.{number}.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{number}"}]},
    }


class Server(Api):
    """Nodes by name, and what was applied."""

    def __init__(self) -> None:
        self.nodes = {"me": node("me", 9), "a": node("a", 1)}
        self.asked: list[str] = []
        self.applied: list[Any] = []
        self.fails = False
        self.events: list[bytes] = []
        self.over, self.watches = threading.Event(), 0

    def get(self, path: str, query: object = None, hook: object = None) -> Any:
        name = path.removeprefix("/api/v1/nodes/")
        if path == "/api/v1/nodes":
            return {"metadata": {"resourceVersion": "7"}, "items": [self.nodes["me"]]}
        self.asked.append(name)
        if self.fails:
            raise ApiError(403, "Forbidden", "not you", path)
        if name not in self.nodes:
            raise ApiError(404, "NotFound", "not found", path)
        return self.nodes[name]

    @contextmanager
    def watch(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> Iterator[Iterator[list[bytes]]]:
        self.watches += 1
        yield self._until_interrupted()

    def _until_interrupted(self) -> Iterator[list[bytes]]:
        while not self.over.wait(0.02):
            yield [self.events.pop()] if self.events else []
        raise SourceError("interrupted")

    def interrupt(self) -> None:
        self.over.set()

    def apply(self, path: str, thing: Any, manager: str) -> Any:
        self.applied.append(thing)
        return thing


class OneNode:
    """A worker that runs, and what is around it."""

    def __init__(self, folder: Path) -> None:
        self.keeper = open_cache(folder / "cluster.json", Log())
        self.feed, self.server, log = Feed(self.keeper, "here"), Server(), Log("error")
        self.inbox: Inbox = SimpleQueue()
        self.view = ClusterView("me", RANGES, self.feed, log, self.inbox)
        settings = KubernetesSettings(cluster_cidrs=RANGES)
        own = OwnObject("me", settings, RANGES, self.view, log, self.feed.degraded)
        self.worker = Worker(own, self.view, RANGES, log, self.feed, self.inbox)

    def names(self) -> list[str]:
        return [n.name for n in self.view._check.nodes]

    def claim(self, name: str, number: int) -> None:
        """A conflicting claim, as a watch brings it."""
        made = Node(name, (ip_address("192.0.2.66"),), (ip_network(f"10.244.{number}.0/24"),))
        with self.view._mutex:
            self.view._check.put(made)
        self.worker.wake()


@pytest.fixture
def one(tmp_path: Path) -> Iterator[OneNode]:
    made = OneNode(tmp_path)
    made.worker.start(made.server)
    yield made
    made.server.interrupt()
    made.worker.stop()
    made.keeper.close()
    made.feed.close()


def test_the_own_node_is_read_and_published_once_its_object_is_known(one: OneNode) -> None:
    eventually(lambda: one.names() == ["me"])
    assert not one.server.applied
    one.inbox.put(Received(None, True))
    eventually(lambda: len(one.server.applied) == 1)
    one.inbox.put(Received(one.server.applied[0], False))
    time.sleep(0.3)
    assert (one.server.watches, len(one.server.applied)) == (1, 1)


def test_an_object_that_others_keep_changing_is_written_ever_more_slowly(one: OneNode) -> None:
    began = time.monotonic()
    while time.monotonic() < began + 3:
        one.inbox.put(Received({"metadata": {}, "spec": {}}, False))
        time.sleep(0.01)
    assert 2 <= len(one.server.applied) <= 6


def test_a_change_of_the_node_is_published_at_once(one: OneNode) -> None:
    one.inbox.put(Received(None, True))
    eventually(lambda: len(one.server.applied) == 1)
    event = {"type": "MODIFIED", "object": node("me", 8)}
    one.server.events.append(json.dumps(event).encode())
    eventually(lambda: len(one.server.applied) == 2)
    assert one.server.applied[1]["spec"]["podCIDRs"] == ["10.244.8.0/24"]


def test_changes_of_the_node_are_not_published_ever_more_slowly(one: OneNode) -> None:
    one.inbox.put(Received(None, True))
    for number in range(1, 8):
        event = {"type": "MODIFIED", "object": node("me", number)}
        one.server.events.append(json.dumps(event).encode())
        eventually(lambda n=number: published(one, n))  # type: ignore[misc]
    assert one.worker._jobs[0].backoff.attempts == 0


def published(one: OneNode, number: int) -> bool:
    cidrs = [thing["spec"]["podCIDRs"] for thing in one.server.applied]
    return [f"10.244.{number}.0/24"] in cidrs


def test_a_conflicting_claim_is_looked_up(one: OneNode) -> None:
    eventually(lambda: one.names() == ["me"])
    one.claim("ghost", 9)
    one.claim("a", 9)
    eventually(lambda: {"ghost", "a"} <= set(one.server.asked))
    eventually(lambda: one.names() == ["a", "me"])
    eventually(lambda: one.view.waiting == () or one.view.waiting)


def test_a_lookup_that_is_refused_is_a_fault_until_nothing_waits(one: OneNode) -> None:
    eventually(lambda: one.names() == ["me"])
    one.server.fails = True
    one.claim("ghost", 9)
    eventually(lambda: "ghost has a conflicting claim, undecided" in one.feed.fault)
    assert one.names() == ["me"]
    with one.view._mutex:
        one.view._check.drop("ghost")
    one.worker.wake()
    eventually(lambda: one.feed.fault == "")


@pytest.mark.parametrize("nodes", [1, 3, 100, 5_000, 100_000])
def test_all_daemons_together_stay_below_a_rate(nodes: int) -> None:
    assert nodes / lookup_pause(nodes) <= LOOKUPS_PER_SECOND
    assert 1 / lookup_pause(nodes) <= 20
