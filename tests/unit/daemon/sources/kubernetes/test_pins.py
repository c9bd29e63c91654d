"""What a watcher takes for a node's own word, whatever others write and whatever it misses."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.sources.kubernetes.chain import show_token, token_of
from daemon.sources.kubernetes.pins import Pins, read_pin

SEED, LENGTH = b"of the node", 200


def token(index: int, seed: bytes = SEED) -> str:
    return show_token(token_of(seed, index, LENGTH))


def thing(
    index: int, generation: int, *, life: str = "o-1", owner: str = "u-1", seed: bytes = SEED
) -> dict[str, Any]:
    reference = {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": owner}
    return {
        "metadata": {
            "name": "a", "uid": life, "generation": generation, "ownerReferences": [reference],
        },
        "spec": {"addresses": ["192.0.2.1"], "podCIDRs": [], "succession": token(index, seed)},
    }  # fmt: skip


def pins() -> Pins:
    made = Pins()
    made.meet("a", read_pin(thing(3, 1)))
    return made


def test_the_next_token_is_the_nodes_own_word() -> None:
    made = pins()
    for number in range(4, 8):
        assert made.hear("a", read_pin(thing(number, number - 2)))
    assert made.hear("a", read_pin(thing(7 + 16, 6)))


@pytest.mark.parametrize(
    ("heard", "stays"),
    [
        (thing(3, 2), True),  # seen before
        (thing(4, 1), False),  # the server would have counted that
        (thing(2, 2), False),
        (thing(20, 2), False),  # too far
        (thing(4, 2, seed=b"other"), False),
        (thing(4, 3), False),  # something is missing
        (thing(4, 0), False),
        (thing(4, 2, life="o-2"), False),
        (thing(4, 1, life="o-2"), False),  # nobody said that the first one went
        (thing(4, 2, owner="u-2"), True),
        ({"metadata": {"name": "a", "uid": "o-1", "generation": 2}, "spec": {}}, False),
        (None, False),
        ([], False),
        ("text", False),
    ],
)
def test_what_is_no_word_of_its_own(heard: Any, stays: bool) -> None:
    made = pins()
    assert not made.hear("a", read_pin(heard))
    assert ("a" in made) == stays


def test_an_owner_changes_with_a_token_alone() -> None:
    made = pins()
    assert not made.hear("a", read_pin(thing(3, 1, owner="u-2")))
    assert made.hear("a", read_pin(thing(4, 2)))
    assert not made.hear("a", read_pin(thing(5, 3, owner="u-2")))
    assert made.hear("a", read_pin(thing(6, 4, owner="u-2")))


@pytest.mark.parametrize(
    "owners",
    [None, [], [{"kind": "Node", "name": "b", "uid": "u-1"}], [7], [{"kind": "Node", "name": "a"}],
     [{"kind": "Node", "name": "a", "uid": "u-1"}, {"kind": "Node", "name": "a", "uid": "u-2"}]],
)  # fmt: skip
def test_who_goes_with_no_node_is_asked_about(owners: object) -> None:
    made = Pins()
    for index in (3, 4):
        heard = thing(index, index)
        heard["metadata"]["ownerReferences"] = owners
        if index == 3:
            made.meet("a", read_pin(heard))
        else:
            assert not made.hear("a", read_pin(heard))


@pytest.mark.parametrize("generation", [1, 2])
def test_who_went_is_asked_about_when_it_comes_back(generation: int) -> None:
    made = pins()
    made.drop("a")
    assert not made.hear("a", read_pin(thing(4, generation, life="o-2")))
    assert "a" not in made


def test_a_list_keeps_what_did_not_change() -> None:
    made = pins()
    made.meet("b", read_pin(thing(1, 1)))
    made.meet("c", read_pin(thing(1, 1)))
    made.compare({"a": read_pin(thing(3, 1)), "b": read_pin(thing(2, 2)), "d": None})
    assert [name in made for name in "abcd"] == [True, False, False, False]


def test_what_was_given_away_stays_as_it_was() -> None:
    made = pins()
    first = made.copy()
    before = dict(first)
    assert made.copy() is first
    made.hear("a", read_pin(thing(4, 2)))
    made.drop("nobody")
    assert first == before
    assert made.copy() != first
    again = Pins(made.copy())
    assert again.hear("a", read_pin(thing(5, 3)))
    assert len(Pins({"a": b"short", **made.copy(), "b": b""})) == 1


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(["metadata", "spec", "uid", "generation",
                                                       "ownerReferences", "succession", "name"]),
                                      inner, max_size=5), max_leaves=12))  # fmt: skip
def test_anything_is_read(value: object) -> None:
    assert read_pin(value) is None or isinstance(read_pin(value), bytes)
    assert read_pin({**thing(3, 1), "metadata": value}) is None
    assert read_pin({**thing(3, 1), "spec": value}) is None


@pytest.mark.parametrize("generation", [0, -1, 1 << 63, 1.0, "1", None])
def test_a_generation_is_a_number(generation: object) -> None:
    heard = thing(3, 1)
    heard["metadata"]["generation"] = generation
    assert read_pin(heard) is None
    heard["metadata"].update(generation=1, uid="\ud800")
    assert read_pin(heard) is not None


class World:
    """An object, its node, somebody who writes whatever he likes, and who watches.

    He knows each token that was ever in the object; he does not know those to come.
    """

    def __init__(self) -> None:
        self.index, self.lives = 0, 1
        self.now: Any = thing(0, 1, life="o-1")
        self.events: list[tuple[str, bool, Any]] = []
        self.pins = Pins()
        self.pins.meet("a", read_pin(self.now))

    def node(self, skipped: int) -> None:
        """The node writes, after so many times when that came to nothing."""
        self.index += 1 + skipped
        self._write(token(self.index), "u-1", own=True)

    def other(self, back: int, owner: str) -> None:
        """Somebody else writes: a token that he has seen, or hashed from one, or (9) made up."""
        text = token(back, b"other") if back == 9 else token(max(0, self.index - back))
        self._write(text, owner, own=False)

    def _write(self, text: str, owner: str, *, own: bool) -> None:
        made = deepcopy(self.now)
        if made is None:
            self.lives += 1
            made = thing(0, 0, life=f"o-{self.lives}")
        made["spec"].update(succession=text, addresses=[f"192.0.2.{len(self.events)}"])
        made["metadata"]["generation"] += 1
        made["metadata"]["ownerReferences"][0]["uid"] = owner
        self.now = made
        self.events.append(("MODIFIED", own, made))

    def delete(self) -> None:
        if self.now is not None:
            self.events.append(("DELETED", False, self.now))
            self.now = None

    def watch(self, lost: set[int]) -> None:
        """Hear what came since, but for some events, if these are there."""
        events, self.events = self.events, []
        for number, (kind, own, made) in enumerate(events):
            if number in lost:
                continue
            if kind == "DELETED":
                self.pins.drop("a")
            elif self.pins.hear("a", read_pin(made)):
                assert own

    def list(self) -> None:
        """See what there is, and nothing of how it came to be."""
        self.events = []
        self.pins.compare({"a": read_pin(self.now)} if self.now else {})


STEPS = st.lists(
    st.tuples(st.just("node"), st.sampled_from([0, 0, 2]))
    | st.tuples(st.just("other"), st.sampled_from([0, 1, 2, 9]), st.sampled_from(["u-1", "u-2"]))
    | st.tuples(st.just("delete"))
    | st.tuples(st.just("watch"), st.sets(st.integers(0, 5)))
    | st.tuples(st.just("list")),
    max_size=16,
)


@settings(max_examples=800)
@given(STEPS)
def test_nothing_but_the_nodes_own_writing_is_taken_for_it(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    for name, *words in steps:
        getattr(world, name)(*words)
    world.watch(set())


@given(st.lists(st.integers(0, 3), max_size=30))
def test_where_nobody_else_writes_every_word_of_the_node_is_taken(skips: list[int]) -> None:
    world = World()
    for skipped in skips:
        world.node(skipped)
        [(_, _, made)] = world.events
        world.events = []
        assert world.pins.hear("a", read_pin(made))
        world.list()
