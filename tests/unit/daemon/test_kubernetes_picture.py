"""What is made of lists and events, whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.cluster import Node
from daemon.log import Log
from daemon.sources.kubernetes.events import Expired, WatchFailed
from daemon.sources.kubernetes.objects import Authority, render
from daemon.sources.kubernetes.picture import Own, Picture
from daemon.sources.lastknown import Keeper, LastKnown
from daemon.sources.remote import Feed, SourceError

RANGES = (ip_network("10.244.0.0/16"),)


def node(name: str, number: int) -> Node:
    return Node(name, (ip_address(f"192.0.2.{number}"),), (ip_network(f"10.244.{number}.0/24"),))


def thing(of: Node, version: int = 1) -> dict[str, Any]:
    made = render(of, f"uid-{of.name}", "podwire")
    made["metadata"]["resourceVersion"] = str(version)
    return made


def event(kind: str, what: object) -> bytes:
    return json.dumps({"type": kind, "object": what}).encode()


def listing(
    items: Iterable[bytes | None], position: str = "7"
) -> Generator[bytes | None, None, Any]:
    yield from items
    return {"metadata": {"resourceVersion": position}}


class View:
    """A picture, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.keeper = Keeper(folder / "cluster.json", Log(), gap=3600, position_gap=3600)
        self.feed = Feed(self.keeper, "here")
        self.own: list[Own] = []
        self.picture = Picture("me", RANGES, self.feed, Log(), self.own.append)

    def list_of(self, *nodes: Node) -> None:
        self.picture.replace(listing(json.dumps(thing(n)).encode() for n in nodes))

    def names(self) -> list[str] | None:
        snapshot = self.feed.take()
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
AUTHORITY = Authority("me", "uid-me", ME.addresses, ME.pod_cidrs)


def test_a_list_and_what_comes_after_it(view: View) -> None:
    view.list_of(A, B)
    assert view.names() == ["a", "b"]
    assert view.picture.position == "7"
    lines = [event("DELETED", thing(A, 8)), event("ADDED", thing(node("c", 3), 9))]
    assert view.picture.events(lines) == 2
    assert view.names() == ["b", "c"]
    assert view.picture.position == "9"


def test_before_anything_is_known_of_others_nothing_is_told(view: View) -> None:
    view.picture.put_own(AUTHORITY)
    assert view.names() is None
    view.list_of()
    assert view.names() == ["me"]


def test_bookmarks_move_the_position_and_are_no_change(view: View) -> None:
    view.list_of(A)
    view.names()
    bookmark = {"metadata": {"resourceVersion": "99"}}
    assert view.picture.events([event("BOOKMARK", bookmark)]) == 0
    assert view.names() is None
    assert view.picture.position == "99"


def test_the_own_object_is_for_others_to_look_at(view: View) -> None:
    view.list_of(A, ME)
    assert view.names() == ["a"]
    view.picture.events([event("MODIFIED", thing(node("me", 3)))])
    view.picture.events([event("DELETED", thing(ME))])
    assert [own.thing is None for own in view.own] == [False, False, True]
    assert view.names() is None


def test_the_position_is_kept_while_this_node_is_published(view: View) -> None:
    view.list_of(A)
    assert view.position() == ""
    view.picture.put_own(AUTHORITY)
    assert view.position() == "- uid-me"
    view.picture.set_published(True)
    assert view.position() == "7 uid-me"
    view.picture.events([event("MODIFIED", thing(node("a", 5), 8))])
    claim = '["a", ["192.0.2.5"], ["10.244.5.0/24"]]'
    assert view.position() == f'8 uid-me {{"open": [{claim}], "left": []}}'
    view.picture.rule("a", Authority("a", "u", *_facts(node("a", 5))))
    assert view.position() == "8 uid-me"
    view.picture.set_published(False)
    assert view.position() == "- uid-me"


def test_somebody_elses_object_does_not_cost_the_position(view: View) -> None:
    view.picture.put_own(AUTHORITY)
    view.picture.set_published(True)
    view.list_of(A)
    thief = Node("thief", (ip_address("192.0.2.66"),), A.pod_cidrs)
    view.picture.events([event("ADDED", thing(thief, 8))])
    view.picture.rule("thief", None)
    view.picture.rule("a", Authority("a", "u", *_facts(A)))
    known = LastKnown("here", (A, ME), RANGES, view.position())
    assert known.position.startswith("8 uid-me {")
    view.picture = Picture("me", RANGES, view.feed, Log(), view.own.append)
    view.picture.put_own(AUTHORITY)
    assert view.picture.resume(known) == "8"
    assert view.picture.questions == ("thief",)
    assert view.names() in (None, ["a", "me"])


@pytest.mark.parametrize("published", [True, False])
def test_who_left_is_remembered_by_the_next_daemon(view: View, published: bool) -> None:
    view.picture.put_own(AUTHORITY)
    view.picture.set_published(published)
    view.list_of(A, B)
    view.picture.events([event("DELETED", thing(A, 8))])
    known = LastKnown("here", (B, ME), RANGES, view.position())
    view.picture = Picture("me", RANGES, view.feed, Log(), view.own.append)
    view.picture.put_own(AUTHORITY)
    assert view.picture.resume(known) == ("8" if published else "")
    view.list_of(B, Node("thief", (ip_address("192.0.2.66"),), A.pod_cidrs))
    assert view.names() == ["b", "me"]
    assert view.picture.questions == ("thief",)


def test_who_was_known_without_a_position_is_remembered(view: View) -> None:
    view.picture.put_own(AUTHORITY)
    assert view.picture.resume(LastKnown("here", (A,), RANGES, "- uid-me")) == ""
    view.list_of(Node("thief", (ip_address("192.0.2.66"),), A.pod_cidrs), B)
    assert view.names() == ["b", "me"]
    assert view.picture.questions == ("thief",)


def test_a_thousand_claims_cost_the_position_and_no_more(view: View) -> None:
    view.picture.put_own(AUTHORITY)
    view.picture.set_published(True)
    view.list_of(*(Node(f"n{n}", (ip_address("192.0.2.9"),), ()) for n in range(1000)))
    assert view.position() == "- uid-me"


def _facts(of: Node) -> tuple[Any, Any]:
    return of.addresses, of.pod_cidrs


@pytest.mark.parametrize(
    ("position", "whole"),
    [
        ("17 uid-me", True),
        ("17 other", False),
        ("17", False),
        ("", False),
        ("a/b uid-me", False),
        ("17 uid-me [[5]]", False),
        ('17 uid-me {"open": [5], "left": []}', False),
        ("17 uid-me {", False),
        ("- uid-me", False),
    ],
)
def test_going_on_needs_the_same_node(view: View, position: str, whole: bool) -> None:
    view.picture.put_own(AUTHORITY)
    known = LastKnown("here", (A, node("me", 4)), RANGES, position)
    assert view.picture.resume(known) == (position.split()[0] if whole else "")
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
    None,
    b"{}",
    b'{"metadata":{}}',
    b'{"metadata":{"name":"x","resourceVersion":{}}}',
    b'{"metadata":{"name":"x"},"spec":{"addresses":[1e999],"podCIDRs":[NaN]}}',
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_is_hostile_in_a_list_hurts_nobody_else(
    view: View, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    view.list_of(A, B)
    before = view.feed.take()
    good = json.dumps(thing(B)).encode()
    view.picture.replace(listing([HOSTILE[number], good]))
    # Who it was is not known: whoever was there stays.
    assert view.names() in (None, ["b"])
    assert before is not None
    assert view.feed.news.refused == 1
    assert "is left out, or part of it" in capfd.readouterr().err


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_what_is_hostile_in_a_watch_hurts_nobody(view: View, number: int) -> None:
    view.list_of(A, B)
    view.names()
    raw = HOSTILE[number]
    lines = [raw, raw and b'{"type":"ADDED","object":' + raw + b"}", raw and b'{"type":' + raw]
    view.picture.events([*lines, event("ADDED", thing(node("c", 3), 8))])
    found = view.names()
    assert found is not None
    assert {"b", "c"} <= set(found)


def test_the_same_is_told_once(view: View, capfd: pytest.CaptureFixture[str]) -> None:
    view.list_of(A)
    bad = thing(node("c", 3))
    bad["spec"]["podCIDRs"] = ["10.9.0.0/24"]
    for _ in range(5):
        view.picture.events([event("MODIFIED", bad)])
    assert view.feed.news.refused == 5
    [line] = capfd.readouterr().err.splitlines()
    assert "NodeNetwork c is left out, or part of it: its pod CIDR 10.9.0.0/24" in line


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({"code": 410, "reason": "Expired"}, Expired),
        ({"code": 500, "message": "oh\n"}, WatchFailed),
        (None, WatchFailed),
        ([], WatchFailed),
        ({"code": {}}, WatchFailed),
    ],
)
def test_an_error_ends_the_watch(view: View, status: object, error: type[Exception]) -> None:
    view.list_of(A)
    with pytest.raises(error):
        view.picture.events([event("DELETED", thing(A)), event("ERROR", status)])
    assert view.names() == []


@pytest.mark.parametrize("root", [None, {}, {"metadata": 5}, {"metadata": {"resourceVersion": 5}}])
def test_a_list_without_position_is_none(view: View, root: object) -> None:
    def items() -> Generator[bytes | None, None, Any]:
        yield json.dumps(thing(A)).encode()
        return root

    with pytest.raises(SourceError, match="has no resourceVersion"):
        view.picture.replace(items())
    assert view.names() is None


def test_a_list_that_breaks_changes_nothing(view: View) -> None:
    view.list_of(A)
    view.names()

    def items() -> Generator[bytes | None, None, Any]:
        yield json.dumps(thing(B)).encode()
        raise SourceError("cut")

    with pytest.raises(SourceError, match="cut"):
        view.picture.replace(items())
    assert view.names() is None
    assert view.picture.position == "7"


@given(st.lists(st.binary(max_size=40) | st.none(), max_size=8))
def test_any_lines_are_borne(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes | None]
) -> None:
    view = View(tmp_path_factory.mktemp("picture"))
    view.list_of(A)
    assert view.picture.events(lines) == 0
    assert view.names() == ["a"]
    view.feed.close()
