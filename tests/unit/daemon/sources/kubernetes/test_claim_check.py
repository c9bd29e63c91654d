"""Whom a daemon believes: nobody gets what another node has by saying so."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model import Node
from daemon.sources.kubernetes.claim_check import Roster
from daemon.sources.kubernetes.objects import Authority

ME = "me"


def node(name: str, address: str, *cidrs: str) -> Node:
    return Node(name, (ip_address(address),), tuple(map(ip_network, cidrs)))


def authority(of: Node) -> Authority:
    return Authority(of.name, f"uid-{of.name}", of.addresses, of.pod_cidrs)


A = node("a", "192.0.2.1", "10.244.1.0/24")
B = node("b", "192.0.2.2", "10.244.2.0/24")
MINE = node(ME, "192.0.2.9", "10.244.9.0/24")


def roster(*nodes: Node) -> Roster:
    made = Roster(ME, nodes)
    made.put_own(MINE)
    return made


def believed(made: Roster) -> dict[str, Node]:
    return {n.name: n for n in made.nodes}


def test_who_comes_with_what_nobody_has_is_believed_at_once() -> None:
    made = roster()
    made.put(A)
    made.put(B)
    assert made.nodes == (A, B, MINE)
    assert made.questions == ()
    assert not made.open


def test_a_change_waits_for_the_node() -> None:
    made = roster(A)
    moved = node("a", "192.0.2.7", "10.244.1.0/24")
    made.put(moved)
    assert believed(made)["a"] is A
    assert made.questions == ("a",)
    assert made.open == (moved,)
    assert made.rule("a", authority(moved)) == ""
    assert believed(made)["a"] == moved
    assert not made.open


def test_a_change_that_the_node_denies_is_not_believed() -> None:
    made = roster(A)
    made.put(node("a", "198.51.100.1", "10.244.1.0/24"))
    assert made.rule("a", authority(A)) == "its Node does not bear it out"
    assert believed(made)["a"] == A
    assert [n.name for n in made.denied] == ["a"]
    made.put(A)
    assert not made.open


def test_of_a_change_that_is_half_true_the_node_is_believed() -> None:
    made = roster(A)
    made.put(node("a", "198.51.100.1", "10.244.7.0/24"))
    moved = node("a", "192.0.2.7", "10.244.7.0/24")
    made.rule("a", authority(moved))
    assert believed(made)["a"] == moved


def test_what_another_has_is_asked_of_both() -> None:
    made = roster(A)
    made.put(node("b", "192.0.2.2", "10.244.1.128/25"))
    assert believed(made) == {"a": A, ME: MINE}
    assert set(made.questions) == {"a", "b"}
    made.rule("b", authority(B))
    made.rule("a", authority(A))
    assert believed(made) == {"a": A, "b": B, ME: MINE}


def test_what_went_over_to_another_node_is_given_to_it() -> None:
    made = roster(A)
    heir = node("b", "192.0.2.2", "10.244.1.0/24")
    made.put(heir)
    made.rule("a", None)
    made.rule("b", authority(heir))
    assert believed(made) == {"b": heir, ME: MINE}


def test_what_is_mine_is_never_asked_of_me() -> None:
    made = roster()
    made.put(node("b", "192.0.2.9", "10.244.9.0/24"))
    assert made.questions == ("b",)
    made.rule("b", authority(B))
    assert believed(made) == {"b": B, ME: MINE}


def test_what_is_said_of_me_is_not_heard() -> None:
    made = roster()
    made.put(node(ME, "198.51.100.1", "10.244.1.0/24"))
    made.drop(ME)
    made.replace([])
    assert made.nodes == (MINE,)


def test_of_two_that_come_together_neither_was_first() -> None:
    made = roster()
    thief = node("a", "192.0.2.1", "10.244.2.0/24")
    made.replace([B, thief])
    assert believed(made) == {ME: MINE}
    assert set(made.questions) == {"a", "b"}
    made.rule("a", authority(A))
    made.rule("b", authority(B))
    assert believed(made) == {"a": A, "b": B, ME: MINE}


def test_who_is_known_stays_while_a_list_disputes_it() -> None:
    made = roster(B)
    made.replace([node("a", "192.0.2.1", "10.244.2.0/24"), B])
    assert believed(made) == {"b": B, ME: MINE}


def test_who_is_in_a_list_no_more_is_gone_unless_it_cannot_be_read() -> None:
    made = roster(A, B)
    made.replace([], ["b"])
    assert believed(made) == {"b": B, ME: MINE}
    assert made.questions == ("b",)
    made.rule("b", authority(B))
    assert not made.open


def test_a_claim_of_no_node_stays_denied_until_it_is_asked_again() -> None:
    made = roster(B)
    ghost = node("a", "192.0.2.1", "10.244.2.0/24")
    made.put(ghost)
    made.rule("a", None)
    made.drop("b")
    made.put(ghost)
    assert believed(made) == {ME: MINE}
    made.ask_again("a")
    assert "a" in made.questions
    made.rule("a", authority(ghost))
    assert believed(made) == {"a": ghost, ME: MINE}


def test_a_change_that_its_node_vouched_for_is_believed_at_once() -> None:
    made = roster(A)
    moved = node("a", "192.0.2.7", "10.244.1.0/24")
    made.put(moved, vouched=True)
    assert believed(made)["a"] == moved
    assert not made.questions + made.open


@pytest.mark.parametrize(
    "claim",
    [
        node("a", "192.0.2.7", "10.244.7.0/24"),  # pod CIDRs, which a Node gets once
        node("a", "192.0.2.7", "10.244.1.0/24", "10.244.7.0/24"),
        node("a", "192.0.2.2", "10.244.1.0/24"),  # what another has
        node("a", "192.0.2.3", "10.244.1.0/24"),  # and had
        node("a", "192.0.2.9", "10.244.1.0/24"),  # and what is mine
    ],
)
def test_what_its_node_vouched_for_is_asked_all_the_same(claim: Node) -> None:
    made = roster(A, B, node("c", "192.0.2.3", "10.244.3.0/24"))
    made.drop("c")
    made.put(claim, vouched=True)
    assert believed(made)["a"] == A
    assert "a" in made.questions


def test_what_was_denied_is_believed_once_its_node_vouches_for_it() -> None:
    made = roster(A)
    moved = node("a", "192.0.2.7", "10.244.1.0/24")
    made.put(moved)
    made.rule("a", authority(A))
    made.put(moved, vouched=True)
    assert believed(made)["a"] == moved
    assert not made.denied


def test_who_comes_back_vouched_for_is_believed() -> None:
    made = roster(A)
    made.drop("a")
    moved = node("a", "192.0.2.7", "10.244.1.0/24")
    made.put(moved, vouched=True)
    assert believed(made)["a"] == moved


def test_whoever_there_was_a_word_of_is_known() -> None:
    made = roster(A, B)
    made.drop("a")
    made.put(node("c", "192.0.2.66", "10.244.2.0/24"))
    made.put(node("d", "192.0.2.67", "10.244.2.0/24"))
    made.rule("d", authority(node("d", "192.0.2.4")))
    assert [name for name in "abcde" if made.knows(name)] == ["a", "b", "c", "d"]
    made.rule("c", None)
    made.drop("d")
    assert made.knows("d")


THIEF = node("thief", "192.0.2.66", "10.244.1.0/24")


def test_what_is_left_without_an_object_is_still_its_nodes() -> None:
    """A daemon that was stopped, or whose object somebody deleted: its pods live on."""
    for thief in (THIEF, node("thief", "192.0.2.66", "10.244.1.64/26"), node("thief", "192.0.2.1")):
        made = roster(A)
        made.drop("a")
        made.put(thief)
        assert believed(made) == {ME: MINE}
        assert made.questions == ("thief",)
        made.rule("thief", None)
        assert believed(made) == {ME: MINE}
        made.put(A)
        assert believed(made) == {"a": A, ME: MINE}
        assert not made.questions


def test_who_is_missing_in_a_list_is_remembered_as_well() -> None:
    made = roster(A)
    made.replace([THIEF, B])
    assert believed(made) == {"b": B, ME: MINE}
    assert made.questions == ("thief",)


def test_who_comes_back_as_somebody_else_is_asked() -> None:
    made = roster(A)
    made.drop("a")
    made.put(node("a", "198.51.100.1", "10.244.1.0/24"))
    assert believed(made) == {ME: MINE}
    assert made.questions == ("a",)


def test_an_heir_with_a_nodes_word_needs_no_other() -> None:
    made = roster(A)
    made.drop("a")
    heir = node("heir", "192.0.2.5", "10.244.1.0/24")
    made.put(heir)
    made.rule("heir", authority(heir))
    assert believed(made) == {"heir": heir, ME: MINE}
    made.drop("heir")
    made.put(heir)
    assert believed(made) == {"heir": heir, ME: MINE}


def test_what_was_known_once_is_believed_as_it_was() -> None:
    made = roster()
    made.remember([A, B])
    made.replace([A, node("b", "192.0.2.7", "10.244.2.0/24"), THIEF])
    assert made.nodes == (MINE,)  # of two that come together neither was first
    made.replace([A])
    assert believed(made) == {"a": A, ME: MINE}


@pytest.mark.parametrize("large", ["10.244.128.0/17", "10.244.4.0/23", "fd00::/56"])
def test_more_than_any_node_has_is_asked_about(large: str) -> None:
    for made in (roster(), Roster(ME)):
        ghost = node("ghost", "192.0.2.66", large)
        made.replace([A, ghost])
        assert "ghost" not in believed(made)
        assert "a" in believed(made)
        assert made.questions == ("ghost",)
        assert made.rule("ghost", None) == "there is no such Node"
        assert "ghost" not in believed(made)


def test_one_nodes_word_for_a_size_is_enough_for_all_that_have_it() -> None:
    made = roster()
    large = [node(f"n{n}", f"192.0.2.{n}", f"10.244.{n}.0/23") for n in (20, 22, 24)]
    made.replace(large)
    assert made.questions == ("n20", "n22", "n24")
    made.rule("n22", authority(large[1]))
    assert made.nodes == (MINE, *large)
    assert not made.questions + made.open


def test_who_has_answered_is_not_asked_again_for_its_size() -> None:
    made = Roster(ME)
    made.replace([A, THIEF])
    made.rule("a", authority(A))
    assert made.questions == ("thief",)


def test_who_had_left_is_forgotten_some_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sources.kubernetes.claim_check.LEFT_MAX", 1)
    made = roster(A, B)
    made.drop("a")
    made.drop("b")
    made.put(node("c", "192.0.2.3", "10.244.1.0/24"))
    assert "c" in believed(made)
    made.put(node("d", "192.0.2.4", "10.244.2.0/24"))
    assert "d" not in believed(made)


def test_what_was_not_believed_is_asked_about_after_a_restart() -> None:
    made = roster()
    made.reopen(A)
    assert believed(made) == {ME: MINE}
    assert (made.questions, made.open) == (("a",), (A,))
    made.rule("a", authority(A))
    assert believed(made) == {"a": A, ME: MINE}


NAMES = [ME, "a", "b", "c"]
# Few enough of each that most of them collide.
CIDRS = ["10.244.0.0/23", "10.244.0.0/24", "10.244.1.0/24", "10.244.1.128/25", "fd00::/64"]
CLAIMS = st.builds(
    lambda name, address, cidrs: node(name, f"192.0.2.{address}", *cidrs),
    st.sampled_from(NAMES),
    st.integers(1, 3),
    st.lists(st.sampled_from(CIDRS), max_size=2, unique=True),
)
STEPS = st.lists(
    st.tuples(st.just("put"), CLAIMS)
    | st.tuples(st.just("replace"), st.lists(CLAIMS, max_size=4, unique_by=lambda n: n.name))
    | st.tuples(st.sampled_from(["drop", "ask", "unusable"]), st.sampled_from(NAMES)),
    max_size=25,
)
# What the control plane says: everybody has something of one's own; c is no node at all.
TRUTH = {
    ME: MINE,
    "a": node("a", "192.0.2.1", "10.244.0.0/24"),
    "b": node("b", "192.0.2.2", "10.244.1.0/24", "fd00::/64"),
    "c": None,
}


def apply(made: Roster, steps: Iterable[tuple[str, object]]) -> set[str]:
    """Take the steps; the names that are claimed in the end."""
    claimed: set[str] = set()
    for step, what in steps:
        if isinstance(what, Node):
            made.put(what)
            claimed.add(what.name)
        elif isinstance(what, list):
            made.replace(what)
            claimed = {n.name for n in what}
        elif step == "drop":
            made.drop(str(what))
            claimed.discard(str(what))
        elif step == "unusable":
            made.put_unusable(str(what))
        else:
            answer(made, str(what))
    return claimed


def answer(made: Roster, name: str) -> None:
    truth = TRUTH[name]
    made.rule(name, authority(truth) if truth else None)


@given(STEPS)
def test_own_is_own_whatever_is_claimed(steps: list[tuple[str, object]]) -> None:
    made = roster()
    apply(made, [step for step in steps if step != ("ask", ME)])
    assert believed(made)[ME] == MINE
    assert ME not in made.questions


@given(STEPS)
def test_a_known_node_changes_by_its_nodes_word_alone(steps: list[tuple[str, object]]) -> None:
    """As long as nobody takes its object away."""
    truth = TRUTH["b"]
    assert truth is not None
    made = roster(truth)
    kept: list[tuple[str, object]] = []
    for step, what in steps:
        whole = isinstance(what, list) and all(n.name != "b" for n in what)
        if what != "b" and not whole and what != ME:
            kept.append((step, what))
    apply(made, kept)
    assert believed(made)["b"] == truth


@given(STEPS)
def test_once_all_are_asked_nobody_has_what_another_node_has(
    steps: list[tuple[str, object]],
) -> None:
    made = roster()
    claimed = apply(made, [step for step in steps if step != ("ask", ME)])
    while made.questions:
        answer(made, made.questions[0])
    found = believed(made)
    assert found.keys() <= claimed | {ME}
    held = [prefix for n in found.values() for prefix in n.pod_cidrs]
    for place, prefix in enumerate(held):
        owners = [n.name for n in found.values() if prefix in n.pod_cidrs]
        assert len(owners) == 1
        others = [o for o in held[:place] if o.version == prefix.version]
        same = [n for n in found.values() if prefix in n.pod_cidrs]
        assert not any(o.overlaps(prefix) for o in others if o not in same[0].pod_cidrs)
    addresses = [a for n in found.values() for a in n.addresses]
    assert len(set(addresses)) == len(addresses)
