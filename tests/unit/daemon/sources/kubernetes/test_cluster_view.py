"""What is made of lists and events, whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.log import Log
from daemon.model import Node
from daemon.sources.cache import LastKnown, open_cache
from daemon.sources.kubernetes.api import ApiError
from daemon.sources.kubernetes.cluster_view import ClusterView, Inbox
from daemon.sources.kubernetes.objects import NodeRecord, render
from daemon.sources.remote import Feed

RANGES = (ip_network("10.244.0.0/16"),)


def node(name: str, number: int) -> Node:
    return Node(name, (ip_address(f"192.0.2.{number}"),), (ip_network(f"10.244.{number}.0/24"),))


def thing(of: Node, version: int = 1) -> dict[str, Any]:
    made = render(of, f"uid-{of.name}", "podwire")
    made["metadata"]["resourceVersion"] = str(version)
    return made


def event(kind: str, what: object) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode()


class View:
    """A view, and what it gave out."""

    def __init__(self, folder: Path) -> None:
        self.keeper = open_cache(folder / "cluster.json", Log())
        self.feed = Feed(self.keeper, "here")
        self.own: Inbox = SimpleQueue()
        self.restart()

    def restart(self) -> None:
        """Another daemon, that has received nothing yet."""
        self.view = ClusterView("me", RANGES, self.feed, Log(), self.own)

    def list_of(self, *nodes: Node) -> None:
        self.view.replace(map(thing, nodes), "7")

    def settle(self, claim: Node, says: Node | None) -> None:
        found = NodeRecord(says.name, "u", says.addresses, says.pod_cidrs) if says else None
        self.view.settle(claim, found)

    def names(self) -> list[str] | None:
        snapshot = self.feed.poll()
        return [n.name for n in snapshot.nodes] if snapshot else None

    def position(self) -> str:
        return self.feed._position


@pytest.fixture
def view(tmp_path: Path) -> Iterator[View]:
    made = View(tmp_path)
    yield made
    made.keeper.close()
    made.feed.close()


A, B, ME = node("a", 1), node("b", 2), node("me", 9)
RECORD = NodeRecord("me", "uid-me", ME.addresses, ME.pod_cidrs)


def test_a_list_and_what_comes_after_it(view: View) -> None:
    view.list_of(A, B)
    assert view.names() == ["a", "b"]
    assert view.view.position == "7"
    lines = [event("DELETED", thing(A, 8)), event("ADDED", thing(node("c", 3), 9))]
    assert view.view.events(lines) == 2
    assert view.names() == ["b", "c"]
    assert view.view.position == "9"


def test_before_anything_is_known_of_others_nothing_is_told(view: View) -> None:
    view.view.put_own(RECORD)
    assert view.names() is None
    view.list_of()
    assert view.names() == ["me"]


def test_bookmarks_move_the_position_and_are_no_change(view: View) -> None:
    view.list_of(A)
    view.names()
    bookmark = {"metadata": {"resourceVersion": "99"}}
    assert view.view.events([event("BOOKMARK", bookmark)]) == 0
    assert view.names() is None
    assert view.view.position == "99"


def test_the_own_object_is_for_others_to_use(view: View) -> None:
    view.list_of(A, ME)
    assert view.names() == ["a"]
    view.view.events([event("MODIFIED", thing(node("me", 3)))])
    view.view.events([event("DELETED", thing(ME))])
    view.list_of(A)
    received = [view.own.get_nowait() for _ in range(view.own.qsize())]
    assert [(own.thing is None, own.is_current) for own in received if own] == [
        (False, True), (False, False), (True, False), (True, True),
    ]  # fmt: skip
    assert view.names() is None


THIEF = Node("thief", (ip_address("192.0.2.66"),), A.pod_cidrs)


def test_what_is_saved_beside_the_nodes(view: View) -> None:
    view.list_of(A)
    assert view.position() == ""
    view.view.put_own(RECORD)
    assert view.position() == '["7", "uid-me", []]'
    view.view.events([event("DELETED", thing(A, 8))])
    former = '["a", ["192.0.2.1"], ["10.244.1.0/24"]]'
    assert view.position() == f'["8", "uid-me", [{former}]]'


def test_while_a_claim_is_not_believed_no_position_is_saved(view: View) -> None:
    view.view.put_own(RECORD)
    view.list_of(A)
    view.view.events([event("ADDED", thing(THIEF, 8))])
    assert view.position() == '["", "uid-me", []]'
    view.settle(THIEF, None)
    assert view.position() == '["", "uid-me", []]'
    view.view.events([event("DELETED", thing(THIEF, 9))])
    assert view.position() == '["9", "uid-me", []]'


def test_who_left_is_remembered_by_the_next_daemon(view: View) -> None:
    view.view.put_own(RECORD)
    view.list_of(A, B)
    view.view.events([event("DELETED", thing(A, 8))])
    known = LastKnown("here", (B, ME), RANGES, view.position())
    view.restart()
    view.view.put_own(RECORD)
    assert view.view.resume(known)
    view.list_of(B, THIEF)
    assert view.names() == ["b", "me"]
    assert view.view.waiting == (THIEF,)


def test_who_was_known_without_a_position_is_remembered(view: View) -> None:
    view.view.put_own(RECORD)
    assert not view.view.resume(LastKnown("here", (A,), RANGES, '["", "uid-me", []]'))
    view.list_of(THIEF, B)
    assert view.names() == ["b", "me"]
    assert view.view.waiting == (THIEF,)


def test_an_object_that_cannot_be_used_changes_nothing(view: View) -> None:
    view.list_of(A, B)
    broken = thing(A, 8)
    broken["spec"]["addresses"] = ["nowhere"]
    view.view.events([event("MODIFIED", broken)])
    view.view.replace([broken], "9")
    assert view.names() == ["a"]
    assert not view.view.waiting


def test_denied_claims_are_asked_about_again(view: View) -> None:
    view.list_of(A)
    view.view.events([event("ADDED", thing(THIEF, 8))])
    view.settle(THIEF, None)
    assert not view.view.waiting
    view.view.reopen_denied()
    assert view.view.waiting == (THIEF,)


@pytest.mark.parametrize(
    ("position", "whole"),
    [
        ('["17", "uid-me", []]', True),
        ('["17", "other", []]', False),
        ('["17", "uid-me"]', False),
        ("17 uid-me", False),
        ("", False),
        ("5", False),
        ('["17", "uid-me", [5]]', False),
        ('["17", "uid-me", 5]', False),
        ('["17", "uid-me", []', False),
        ('["", "uid-me", []]', False),
    ],
)
def test_going_on_needs_the_same_node(view: View, position: str, whole: bool) -> None:
    view.view.put_own(RECORD)
    known = LastKnown("here", (A, node("me", 4)), RANGES, position)
    assert view.view.resume(known) == whole
    assert view.view.position == ("17" if whole else "")
    assert view.names() == (["a", "me"] if whole else None)


HOSTILE = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"5",
    b'"x"',
    b"\xff\xfe",
    b'{"a":' * 100_000,
    b'{"metadata":{"name":"a"},"spec":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    b"{}",
    b'{"metadata":{}}',
    b'{"metadata":{"name":"x","resourceVersion":{}}}',
    b'{"metadata":{"name":"x"},"spec":{"addresses":[1e999],"podCIDRs":[NaN]}}',
]


@pytest.mark.parametrize(
    "item",
    [
        None,
        [],
        5,
        "x",
        {},
        {"metadata": {}},
        {"metadata": 5},
        {"metadata": {"name": ["a"]}},
        {"metadata": {"name": "../../etc/passwd"}},
        {"metadata": {"name": "a", "resourceVersion": {}}},
        {"metadata": {"name": "a"}, "spec": {"addresses": [float("inf")], "podCIDRs": [None]}},
    ],
)
def test_what_is_hostile_in_a_list_hurts_nobody_else(
    view: View, item: object, capfd: pytest.CaptureFixture[str]
) -> None:
    view.list_of(A, B)
    before = view.names()
    view.view.replace([item, thing(B)], "7")
    # An object that cannot be used still says that its node is there.
    is_a = "'name': 'a'" in str(item)
    assert (view.names() or before) == (["a", "b"] if is_a else ["b"])
    assert "is left out, or part of it" in capfd.readouterr().err


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_is_hostile_in_a_watch_hurts_nobody(view: View, number: int) -> None:
    view.list_of(A, B)
    view.names()
    raw = HOSTILE[number]
    lines = [raw, b'{"type":"ADDED","object":' + raw + b"}", b'{"type":' + raw]
    view.view.events([*lines, event("ADDED", thing(node("c", 3), 8))])
    found = view.names()
    assert found is not None
    assert {"b", "c"} <= set(found)


def test_the_same_is_told_once(view: View, capfd: pytest.CaptureFixture[str]) -> None:
    view.list_of(A)
    bad = thing(node("c", 3))
    bad["spec"]["podCIDRs"] = ["10.9.0.0/24"]
    for _ in range(5):
        view.view.events([event("MODIFIED", bad)])
    [line] = capfd.readouterr().err.splitlines()
    assert "NodeNetwork c is left out, or part of it: its pod CIDR 10.9.0.0/24" in line


def test_what_came_before_an_error_counts(view: View) -> None:
    view.list_of(A)
    with pytest.raises(ApiError, match="410"):
        view.view.events([event("DELETED", thing(A)), event("ERROR", {"code": 410})])
    assert view.names() == []


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_any_lines_are_borne(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    view = View(tmp_path_factory.mktemp("picture"))
    view.list_of(A)
    assert view.view.events(lines) == 0
    assert view.names() == ["a"]
    view.feed.close()
