"""What a node does about its own Node and its own object."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from daemon.config.schema import KubernetesSettings
from daemon.log import Log
from daemon.sources.cache import open_cache
from daemon.sources.http import BadResponse
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.cluster_view import ClusterView
from daemon.sources.kubernetes.own_object import OwnObject
from daemon.sources.remote import Feed, SourceError
from kernel.model import IPNetwork
from tests.cluster.follower import Notes

RANGES = (ip_network("10.244.0.0/16"),)
EVIL = ["198.51.100.66"]
Thing = dict[str, Any]


def node(number: int) -> Thing:
    return {
        "metadata": {"name": "me", "uid": "u-1"},
        "spec": {"podCIDRs": ["10.244.9.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{number}"}]},
    }


class Server(Api):
    """Answers from memory: the Node, and one object."""

    def __init__(self) -> None:
        self.node: Thing | ApiError | None = node(9)
        self.events: list[bytes] = []
        self.object: Thing | None = None
        self.foreign: Thing = {}
        self.lives = self.deleted = 0
        self.is_cut_off = False

    def get(self, path: str, query: object = None, hook: object = None) -> Any:
        if path != "/api/v1/nodes":
            if self.object is None:
                raise ApiError(404, "NotFound", "not found", path)
            return self.object
        assert query == {"fieldSelector": "metadata.name=me"}
        if isinstance(self.node, ApiError):
            raise self.node
        return {"metadata": {"resourceVersion": "7"}, "items": [self.node] if self.node else []}

    @contextmanager
    def watch(
        self, path: str, query: Mapping[str, str], silence: float
    ) -> Iterator[Iterator[list[bytes]]]:
        assert (path, query["fieldSelector"]) == ("/api/v1/nodes", "metadata.name=me")
        assert query["resourceVersion"] == "7"
        yield iter([self.events])

    def apply(self, path: str, thing: Any, manager: str) -> Any:
        assert path == "/apis/podwire.dev/v1/namespaces/podwire/nodenetworks/me"
        if self.object is None:
            self.lives, self.foreign = self.lives + 1, {}
        generation = self.object["metadata"]["generation"] if self.object else 0
        changed = not self.object or self.object["spec"] != thing["spec"]
        version = {"uid": f"o-{self.lives}", "generation": generation + changed}
        self.object = {**thing, "metadata": {**thing["metadata"], **version, **self.foreign}}
        if self.is_cut_off:
            raise SourceError("the answer did not come")
        return self.object

    def delete(self, path: str) -> None:
        self.object, self.deleted = None, self.deleted + 1


class Mine:
    """A node that is published."""

    def __init__(self, folder: Path, among: tuple[IPNetwork, ...] = ()) -> None:
        self.keeper = open_cache(folder / "cluster.json", Log())
        self.feed, self.log, self.server = Feed(self.keeper, "here"), Notes(), Server()
        view = ClusterView("me", RANGES, self.feed, self.log, SimpleQueue())
        settings = KubernetesSettings(cluster_cidrs=RANGES, node_addresses=among)
        self.own = OwnObject("me", settings, RANGES, view, self.log, self.feed.degraded)
        assert self.own.read_node(self.server) == "7"
        assert not self.own.must_publish  # what there is is not known yet
        self.own.receive(None, is_current=True)
        self.publish()

    def publish(self) -> None:
        assert self.own.must_publish
        self.own.publish(self.server)
        assert self.own.is_published
        assert not self.own.must_publish

    def move(self, number: int) -> None:
        """Other addresses, published."""
        self.server.node = node(number)
        self.own.read_node(self.server)
        self.publish()

    @property
    def thing(self) -> Thing:
        """The object."""
        assert self.server.object is not None
        return self.server.object


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Mine]:
    made = Mine(tmp_path)
    yield made
    made.keeper.close()
    made.feed.close()


def changed(thing: Thing, generation: int, uid: str = "o-1", **spec: object) -> Thing:
    metadata = {**thing["metadata"], "generation": generation, "uid": uid}
    return {**thing, "metadata": metadata, "spec": {**thing["spec"], **spec}}


def test_an_object_goes_with_its_node(mine: Mine) -> None:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "me", "uid": "u-1"}
    assert mine.thing["metadata"]["ownerReferences"] == [owner]
    assert mine.thing["spec"] == {"addresses": ["192.0.2.9"], "podCIDRs": ["10.244.9.0/24"]}


def test_what_is_right_already_is_not_written(mine: Mine) -> None:
    version = mine.thing["metadata"]["generation"]
    mine.own.read(mine.server)
    mine.own.read_node(mine.server)
    assert not mine.own.must_publish
    assert mine.thing["metadata"]["generation"] == version


def test_an_event_of_before_the_last_write_changes_nothing(mine: Mine) -> None:
    before = mine.thing
    mine.move(10)
    mine.own.receive(before, is_current=False)
    assert mine.own.is_published
    assert "another client" not in mine.log.text


@pytest.mark.parametrize(
    ("generation", "uid", "is_current"),
    [(3, "o-1", False), (1, "o-2", False), (1, "o-1", True), (1, "o-2", True)],
)
def test_what_others_wrote_is_written_over(
    mine: Mine, generation: int, uid: str, is_current: bool
) -> None:
    """Also where the API was restored from a backup, and counts from an earlier generation."""
    mine.move(10)
    theirs = changed(mine.thing, generation, uid, addresses=EVIL)
    mine.own.receive(theirs, is_current=is_current)
    assert "NodeNetwork was changed by another client" in mine.log.text
    mine.publish()
    assert mine.thing["spec"]["addresses"] == ["192.0.2.10"]


def event(kind: str, thing: object) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode()


def test_each_change_of_the_node_is_taken(mine: Mine) -> None:
    calls: list[Thing | None] = []
    mine.server.events = [
        event("BOOKMARK", {"metadata": {"resourceVersion": "8"}}),
        event("MODIFIED", node(10)),
        event("DELETED", node(10)),
        event("ADDED", {**node(11), "metadata": {"name": "me", "uid": "u-2"}}),
    ]
    mine.own.watch_node(mine.server, "7", lambda: calls.append(mine.own._desired))
    published = [of and of["spec"]["addresses"] for of in calls]
    assert published == [["192.0.2.10"], None, ["192.0.2.11"]]
    mine.publish()
    assert mine.thing["metadata"]["ownerReferences"][0]["uid"] == "u-2"
    assert mine.feed.fault == ""


def test_an_event_of_the_node_that_cannot_be_read_ends_the_watch(mine: Mine) -> None:
    mine.server.events = [b"<html>"]
    with pytest.raises(BadResponse, match="an event of Node me is no JSON"):
        mine.own.watch_node(mine.server, "7", lambda: None)


@pytest.mark.parametrize("owners", [None, [], [{"kind": "Node", "uid": "another"}]])
def test_an_object_without_its_owner_is_written_again(mine: Mine, owners: object) -> None:
    theirs = changed(mine.thing, 1)
    theirs["metadata"]["ownerReferences"] = owners
    mine.own.receive(theirs, is_current=False)
    mine.publish()


def test_an_object_that_went_is_told_of(mine: Mine) -> None:
    mine.own.receive(None, is_current=False)
    assert "NodeNetwork was deleted by another client" in mine.log.text
    mine.publish()


def test_what_stays_whatever_is_written_goes_with_the_object(mine: Mine) -> None:
    [owner] = mine.thing["metadata"]["ownerReferences"]
    mine.server.foreign = {"ownerReferences": [owner, {**owner, "uid": "another"}]}
    mine.own.receive({**mine.thing, "metadata": mine.server.foreign}, is_current=False)
    with pytest.raises(SourceError, match="is deleted and written again"):
        mine.own.publish(mine.server)
    assert mine.server.deleted == 1
    mine.publish()
    assert mine.thing["metadata"]["ownerReferences"] == [owner]


def test_a_lost_response_is_no_fault_once_the_object_is_there(mine: Mine) -> None:
    mine.server.node, mine.server.is_cut_off = node(10), True
    mine.own.read_node(mine.server)
    with pytest.raises(SourceError):
        mine.own.publish(mine.server)
    assert "not published: the answer did not come" in mine.feed.fault
    mine.own.receive(mine.thing, is_current=False)
    assert mine.own.is_published
    assert "not published" not in mine.feed.fault


def test_a_node_that_is_not_there_is_not_published(mine: Mine) -> None:
    mine.server.node = None
    mine.own.read_node(mine.server)
    assert "the cluster has no Node me: `node` in podwired.yaml must be" in mine.feed.fault
    mine.own.receive(None, is_current=False)
    assert not mine.own.must_publish
    mine.server.node = {**node(10), "metadata": {"name": "me", "uid": "u-2"}}
    mine.own.read_node(mine.server)
    mine.publish()
    assert mine.thing["metadata"]["ownerReferences"][0]["uid"] == "u-2"
    assert mine.feed.fault == ""


def test_while_the_node_cannot_be_read_the_object_is_kept_as_it_was(mine: Mine) -> None:
    mine.server.node = ApiError(500, "", "oh", "GET")
    with pytest.raises(ApiError):
        mine.own.read_node(mine.server)
    assert "with 500: oh" in mine.feed.fault
    mine.own.receive(changed(mine.thing, 2, addresses=EVIL), is_current=False)
    mine.publish()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"spec": {}}, "Node me has no podCIDRs yet"),
        ({"status": {}}, "Node me has no InternalIP address"),
        (
            {"status": {"addresses": [{"type": "ExternalIP", "address": "198.51.100.1"}]}},
            "has no InternalIP address, only ExternalIP 198.51.100.1, which nodes do not use",
        ),
        ({"spec": {"podCIDRs": ["10.9.0.0/24"]}}, "its pod CIDR 10.9.0.0/24 is outside of"),
        ({"metadata": {"name": "you", "uid": "u"}}, "Node me: the API answers with you"),
    ],
)
def test_what_a_node_lacks_is_a_fault(mine: Mine, change: Thing, fault: str) -> None:
    mine.server.node = {**node(9), **change}
    mine.own.read_node(mine.server)
    assert fault in mine.feed.fault


def test_the_key_decides_among_internal_addresses(tmp_path: Path) -> None:
    mine = Mine(tmp_path, (ip_network("192.0.2.0/24"),))
    found = [{"type": "InternalIP", "address": a} for a in ("10.9.0.11", "192.0.2.7")]
    mine.server.node = {**node(9), "status": {"addresses": found}}
    mine.own.read_node(mine.server)
    mine.publish()
    assert mine.thing["spec"]["addresses"] == ["192.0.2.7"]
    mine.server.node = {**node(9), "status": {"addresses": found[:1]}}
    mine.own.read_node(mine.server)
    assert mine.feed.fault.endswith(
        "has no InternalIP in source.kubernetes.nodeAddresses, 192.0.2.0/24: it has 10.9.0.11"
    )
