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

from daemon.log import Log
from daemon.model import Node
from daemon.sources.cache import Keeper, LastKnown, load
from daemon.sources.kubernetes.chain import show_token, token_of
from daemon.sources.kubernetes.cluster_view import Own, Picture
from daemon.sources.kubernetes.events import Expired, Restored, WatchFailed
from daemon.sources.kubernetes.objects import Authority, render
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
        self.path = folder / "cluster.json"
        self.keeper = Keeper(self.path, Log(), gap=3600, position_gap=3600)
        self.feed = Feed(self.keeper, "here")
        self.own: list[Own] = []
        self.picture = Picture("me", RANGES, self.feed, Log(), self.own.append)

    def list_of(self, *nodes: Node) -> None:
        self.picture.replace(listing(json.dumps(thing(n)).encode() for n in nodes))

    def rule(self, name: str, authority: Authority | None) -> None:
        self.picture.rule(name, authority, self.picture.question(name))

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
    view.rule("a", Authority("a", "u", *_facts(node("a", 5))))
    assert view.position() == "8 uid-me"
    view.picture.set_published(False)
    assert view.position() == "- uid-me"


def test_somebody_elses_object_does_not_cost_the_position(view: View) -> None:
    view.picture.put_own(AUTHORITY)
    view.picture.set_published(True)
    view.list_of(A)
    thief = Node("thief", (ip_address("192.0.2.66"),), A.pod_cidrs)
    view.picture.events([event("ADDED", thing(thief, 8))])
    view.rule("thief", None)
    view.rule("a", Authority("a", "u", *_facts(A)))
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


SEED = b"of a test"


def signed(of: Node, index: int, version: int, generation: int = 0) -> dict[str, Any]:
    """An object with a token; the version is its generation, too, unless that is given."""
    made = thing(of, version)
    made["metadata"] |= {"uid": f"o-{of.name}", "generation": generation or version}
    made["spec"]["succession"] = show_token(token_of(SEED, index, 50))
    return made


MOVED = Node("a", (ip_address("192.0.2.71"),), A.pod_cidrs)
AGAIN = Node("a", (ip_address("192.0.2.72"),), A.pod_cidrs)
EVIL = Node("a", (ip_address("192.0.2.66"),), A.pod_cidrs)


def of_a(view: View) -> Node:
    snapshot = view.feed.take()
    assert snapshot is not None
    return next(n for n in snapshot.nodes if n.name == "a")


def list_signed(view: View, *things: object, position: str = "7") -> None:
    view.picture.replace(listing((json.dumps(t).encode() for t in things), position))


def test_each_of_a_batch_is_heard_in_its_order(view: View) -> None:
    list_signed(view, signed(A, 3, 1))
    batch = [signed(MOVED, 4, 2), signed(AGAIN, 5, 3)]
    view.picture.events(event("MODIFIED", t) for t in batch)
    assert of_a(view) == AGAIN
    assert view.picture.questions == ()


def test_the_last_of_a_batch_hides_nothing(view: View) -> None:
    """Somebody else writes over the node's own change before anybody has heard of that."""
    list_signed(view, signed(A, 3, 1))
    batch = [signed(MOVED, 4, 2), signed(EVIL, 4, 3)]
    view.picture.events(event("MODIFIED", t) for t in batch)
    assert of_a(view) == MOVED
    assert view.picture.questions == ("a",)


DEEP = b'{"f:x":' * 1500 + b"{}" + b"}" * 1500
UNREADABLE = [
    None,
    b'{"type":"MODIFIED","object":{"metadata":{"name":"a","managedFields":' + DEEP + b"}}}",
    b"{}",
    b"[]",
    b'{"type":"MODIFIED","object":{}}',
    b'{"type":"MOVED","object":{"metadata":{"name":"a"}}}',
    b'{"type":["ADDED"]}',
    b"{",
]


@pytest.mark.parametrize("number", range(len(UNREADABLE)))
def test_after_an_event_that_cannot_be_read_nobody_is_known(view: View, number: int) -> None:
    """It may have had anybody's token: whoever spoils an object spoils its node's next change."""
    list_signed(view, signed(A, 3, 1), signed(B, 3, 1))
    view.picture.events([UNREADABLE[number], event("MODIFIED", signed(MOVED, 4, 2))])
    view.picture.events([event("MODIFIED", signed(Node("b", MOVED.addresses, ()), 4, 2))])
    assert view.picture.questions == ("a", "b")


@pytest.mark.parametrize("number", range(len(UNREADABLE)))
def test_a_life_that_cannot_be_read_gives_no_token_away(view: View, number: int) -> None:
    """Deleted, made anew unreadably, put right and so revealed, and deleted again."""
    list_signed(view, signed(A, 3, 1))
    view.picture.events([event("DELETED", signed(A, 3, 2, 1)), *3 * [UNREADABLE[number]]])
    third = signed(EVIL, 4, 9, 1)
    third["metadata"]["uid"] = "o-3"
    view.picture.events([event("ADDED", third)])
    assert view.names() == []
    assert view.picture.questions == ("a",)


def test_who_went_is_asked_about_when_it_comes_back(view: View) -> None:
    list_signed(view, signed(A, 3, 1))
    again = signed(MOVED, 4, 3, 1)
    again["metadata"]["uid"] = "o-2"
    view.picture.events([event("DELETED", signed(A, 3, 2, 1)), event("ADDED", again)])
    assert view.picture.questions == ("a",)


def test_what_may_be_of_the_own_object_is_told(view: View) -> None:
    deep = UNREADABLE[1]
    assert deep is not None
    view.list_of(ME)
    view.picture.events([deep, b'{"type":"MODIFIED","object":{}}'])
    assert view.own[1:] == []
    mine = deep.replace(b'"a"', b'"me"')
    view.picture.events([None, mine])
    view.picture.replace(listing([mine]))
    view.picture.replace(listing([mine, json.dumps(thing(ME)).encode()]))
    assert [(own.thing is None, own.is_readable) for own in view.own[1:]] == [
        *3 * [(True, False)],
        (False, True),
    ]


def test_what_cannot_be_used_moves_the_pin_all_the_same(view: View) -> None:
    list_signed(view, signed(A, 3, 1))
    broken = signed(A, 4, 2)
    broken["spec"]["addresses"] = ["nowhere"]
    view.picture.events([event("MODIFIED", broken)])
    view.rule("a", Authority("a", "u", *_facts(A)))
    view.picture.events([event("MODIFIED", signed(EVIL, 4, 3))])
    assert of_a(view) == A
    assert view.picture.questions == ("a",)


def test_a_list_never_vouches(view: View) -> None:
    list_signed(view, signed(A, 3, 1))
    list_signed(view, signed(EVIL, 4, 2))
    assert of_a(view) == A
    assert view.picture.questions == ("a",)
    view.rule("a", Authority("a", "u", *_facts(EVIL)))
    view.picture.events([event("MODIFIED", signed(MOVED, 5, 3))])
    assert of_a(view) == EVIL
    assert view.picture.questions == ("a",)


def test_a_list_without_it_or_that_cannot_be_read_keeps_no_pin(view: View) -> None:
    for items in ([], [None]):
        list_signed(view, signed(A, 3, 1))
        view.picture.replace(listing(items))
        view.picture.events([event("ADDED", signed(EVIL, 4, 1))])
        assert view.picture.questions == ("a",)
        view.rule("a", None)


def test_a_lie_costs_the_pin(view: View) -> None:
    list_signed(view, signed(A, 3, 1))
    view.picture.events([event("MODIFIED", signed(EVIL, 3, 2))])
    view.rule("a", Authority("a", "u", *_facts(A)))
    view.picture.events([event("MODIFIED", signed(MOVED, 4, 3))])
    assert view.picture.questions == ("a",)


def test_who_comes_with_what_another_has_gets_no_pin(view: View) -> None:
    list_signed(view, signed(B, 3, 1))
    rival = Node("a", A.addresses, B.pod_cidrs)
    view.picture.events([event("ADDED", signed(rival, 3, 1))])
    view.rule("a", Authority("a", "u", *_facts(rival)))
    view.rule("b", None)
    moved = Node("a", MOVED.addresses, B.pod_cidrs)
    view.picture.events([event("MODIFIED", signed(moved, 4, 2))])
    assert view.picture.questions == ("a",)


@pytest.mark.parametrize("listed", [True, False])
def test_who_waits_for_an_answer_gets_no_pin(view: View, listed: bool) -> None:
    large = Node("a", A.addresses, (ip_network("10.244.10.0/23"),))
    list_signed(view, *[signed(large, 3, 1)][:listed])
    if not listed:
        view.picture.events([event("ADDED", signed(large, 3, 1))])
    assert view.picture.questions == ("a",)
    view.rule("a", Authority("a", "u", *_facts(large)))
    moved = Node("a", MOVED.addresses, large.pod_cidrs)
    view.picture.events([event("MODIFIED", signed(moved, 4, 2))])
    assert view.picture.questions == ("a",)


def test_there_are_no_more_pins_than_nodes(view: View) -> None:
    """Whatever is claimed, and whoever left."""
    view.picture.put_own(AUTHORITY)
    large = [Node(f"n{n}", (ip_address(f"198.51.100.{n}"),), (ip_network("10.244.64.0/20"),))
             for n in range(100)]  # fmt: skip
    list_signed(view, signed(A, 3, 1), *(signed(node, 0, 1) for node in large))
    view.picture.events(event("ADDED", signed(node, 0, 1)) for node in large)
    view.picture.events([event("ADDED", signed(B, 0, 1)), event("DELETED", signed(A, 3, 1))])
    kept = view.picture._pins.copy()
    assert set(kept) == {"b"}
    resume = LastKnown("here", (A, ME), RANGES, "7 uid-me", notes={"a": kept["b"], **kept})
    view.picture.resume(resume)
    assert set(view.picture._pins.copy()) == {"a"}
    list_signed(view, thing(ME))
    assert not view.picture._pins.copy()


def test_an_answer_that_nobody_waits_for_any_more_changes_nothing(view: View) -> None:
    """The Node was read before the change, the change proved itself meanwhile."""
    list_signed(view, signed(A, 3, 1))
    view.picture.events([event("MODIFIED", signed(EVIL, 3, 2))])
    view.picture.events([event("MODIFIED", signed(MOVED, 4, 3))])
    view.rule("a", Authority("a", "u", *_facts(A)))
    assert of_a(view) == MOVED


def test_an_answer_to_an_older_question_is_none_to_a_newer_one(view: View) -> None:
    list_signed(view, signed(A, 3, 1))
    view.picture.events([event("MODIFIED", signed(EVIL, 3, 2))])
    older = view.picture.question("a")
    view.picture.events([event("MODIFIED", signed(MOVED, 4, 3))])
    assert view.picture.question("a") == 0
    view.picture.events([event("MODIFIED", signed(EVIL, 4, 4))])
    view.picture.rule("a", Authority("a", "u", *_facts(A)), older)
    assert of_a(view) == MOVED
    assert view.picture.questions == ("a",)
    view.rule("a", Authority("a", "u", *_facts(MOVED)))
    assert view.picture.question("a") == 0


def test_what_was_not_heard_yet_is_not_forgotten_with_the_next(view: View) -> None:
    old = Own(5, is_listed=True, is_restored=True)
    assert Own(None).after(Own(5)) == Own(None)
    assert Own(None, is_readable=False).after(old) == Own(None, False, True, True)
    assert Own(6, is_listed=True).after(Own(5)) == Own(6, is_listed=True)


def resumed(view: View) -> None:
    """Another daemon, that has what the last one left."""
    view.keeper.close()
    known = load(view.path, "here")
    assert known is not None
    view.picture = Picture("me", RANGES, view.feed, Log(), view.own.append)
    view.picture.put_own(AUTHORITY)
    view.picture.resume(known)


def test_pins_are_of_the_moment_of_the_position(view: View) -> None:
    view.picture.put_own(AUTHORITY)
    view.picture.set_published(True)
    list_signed(view, signed(A, 3, 1), thing(ME))
    view.picture.events([event("MODIFIED", signed(A, 4, 8, 2))])  # the same, said again
    resumed(view)
    assert view.picture.position == "8"
    view.picture.events([event("MODIFIED", signed(EVIL, 4, 9, 3))])
    assert view.picture.questions == ("a",)
    view.picture.events([event("MODIFIED", signed(MOVED, 5, 10, 4))])
    assert of_a(view) == MOVED


def test_pins_without_a_position_are_of_use_where_nothing_changed(view: View) -> None:
    view.picture.put_own(AUTHORITY)
    list_signed(view, signed(A, 3, 1), signed(B, 3, 1))
    resumed(view)
    assert view.picture.position == ""
    list_signed(view, signed(A, 3, 1), signed(B, 4, 2))
    view.picture.events([event("MODIFIED", signed(MOVED, 4, 2))])
    moved = Node("b", (ip_address("192.0.2.73"),), B.pod_cidrs)
    view.picture.events([event("MODIFIED", signed(moved, 5, 3))])
    assert of_a(view) == MOVED
    assert view.picture.questions == ("b",)


def test_pins_of_a_time_that_never_was_are_none(view: View) -> None:
    list_signed(view, signed(A, 3, 1))
    with pytest.raises(Restored):
        view.picture.compare({"metadata": {"resourceVersion": "6"}})
    list_signed(view, signed(A, 3, 1), thing(ME), position="8")
    view.picture.events([event("MODIFIED", signed(MOVED, 4, 2))])
    assert view.picture.questions == ("a",)
    assert [own.is_restored for own in view.own] == [False, True]


def test_a_list_of_before_what_was_heard_is_of_a_backup(view: View) -> None:
    """As the API says it that answers 504, Too large resource version."""
    list_signed(view, signed(A, 3, 1), position="99")
    view.picture.position = ""
    list_signed(view, signed(A, 3, 1), position="100")
    view.picture.position = ""
    list_signed(view, signed(A, 3, 1), position="98")
    view.picture.position = ""
    list_signed(view, signed(A, 3, 1), position="99")
    assert [own.is_restored for own in view.own] == [False, False, True, False]
    view.picture.events([event("MODIFIED", signed(MOVED, 4, 2))])
    assert view.picture.questions == ("a",)


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
