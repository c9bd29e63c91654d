"""Which claims are believed: no node gets what another one has by claiming it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.model import Node
from daemon.routing.planner import Planner
from daemon.sources.kubernetes.claim_check import ClaimCheck
from daemon.sources.kubernetes.objects import NodeRecord
from tests.unit.daemon import clusters

ME = "me"


def node(name: str, address: str, *cidrs: str) -> Node:
    return Node(name, (ip_address(address),), tuple(map(ip_network, cidrs)))


def record(of: Node) -> NodeRecord:
    return NodeRecord(of.name, f"uid-{of.name}", of.addresses, of.pod_cidrs)


A = node("a", "192.0.2.1", "10.244.1.0/24")
B = node("b", "192.0.2.2", "10.244.2.0/24")
MINE = node(ME, "192.0.2.9", "10.244.9.0/24")


def check(*nodes: Node) -> ClaimCheck:
    made = ClaimCheck(ME, nodes)
    made.put_own(MINE)
    return made


def believed(made: ClaimCheck) -> dict[str, Node]:
    return {n.name: n for n in made.nodes}


def settle(made: ClaimCheck, name: str, says: Node | None) -> str:
    """Answer what is asked of a Node."""
    claim = next(claim for claim in made.waiting if claim.name == name)
    return made.settle(claim, record(says) if says else None)


def test_what_no_other_node_has_is_believed_at_once() -> None:
    made = check()
    made.put(A)
    made.put(B)
    assert made.nodes == (A, B, MINE)
    assert made.is_settled


@pytest.mark.parametrize(
    "change",
    [
        node("a", "192.0.2.7", "10.244.1.0/24"),
        node("a", "192.0.2.1", "10.244.7.0/24"),
        node("a", "192.0.2.7", "10.244.1.0/24", "10.244.7.0/24"),
        node("a", "192.0.2.7"),
    ],
)
def test_a_change_to_what_no_other_node_has_costs_no_read(change: Node) -> None:
    made = check(A, B)
    made.put(change)
    assert believed(made)["a"] == change
    assert made.is_settled


@pytest.mark.parametrize(
    "claim",
    [
        node("a", "192.0.2.1", "10.244.2.0/24"),
        node("a", "192.0.2.1", "10.244.2.128/25"),
        node("a", "192.0.2.1", "10.244.1.0/24", "10.244.9.0/24"),
        node("a", "192.0.2.2", "10.244.1.0/24"),
        node("a", "192.0.2.9", "10.244.1.0/24"),
        node("a", "192.0.2.3", "10.244.1.0/24"),  # what c had
        node("a", "192.0.2.1", "10.244.3.0/24"),
        node("a", "192.0.2.1", "10.244.4.0/24"),  # what d had before it changed
    ],
)
def test_what_another_node_has_or_had_waits_and_the_node_decides(claim: Node) -> None:
    made = check(A, B, node("c", "192.0.2.3", "10.244.3.0/24"), node("d", "192.0.2.4",
                                                                    "10.244.4.0/24"))  # fmt: skip
    made.drop("c")
    made.put(node("d", "192.0.2.4", "10.244.5.0/24"))
    before = made.nodes
    made.put(claim)
    assert made.nodes == before
    assert [*made.waiting] == [claim]
    assert settle(made, "a", A) == "its Node says otherwise"
    assert made.nodes == before
    assert not made.is_settled
    made.put(claim)  # the same again is denied without another read
    assert not made.waiting
    made.put(A)
    assert made.is_settled


def test_of_a_claim_that_is_half_true_the_node_is_believed() -> None:
    made = check(A, B)
    made.put(node("a", "198.51.100.1", "10.244.2.0/24"))
    moved = node("a", "192.0.2.7", "10.244.7.0/24")
    settle(made, "a", moved)
    assert believed(made)["a"] == moved


def test_a_claim_that_changed_while_its_node_was_read_waits_for_another_read() -> None:
    made = check(A, B)
    first, second = (node("a", f"192.0.2.{n}", "10.244.2.0/24") for n in (7, 8))
    made.put(first)
    made.put(second)
    assert made.settle(first, record(first)) == ""
    assert believed(made)["a"] == A
    assert made.waiting == (second,)
    made.put(A)
    assert made.settle(second, record(second)) == ""
    assert believed(made)["a"] == A


def test_what_went_over_to_another_node_is_given_to_it() -> None:
    made = check(A)
    heir = node("b", "192.0.2.2", "10.244.1.0/24")
    made.put(heir)
    assert settle(made, "b", heir) == ""
    # Now a's claim is the one in doubt: it was believed because nobody else had it.
    assert made.waiting == (A,)
    assert settle(made, "a", None) == "there is no such Node"
    assert believed(made) == {"b": heir, ME: MINE}


def test_who_came_first_with_anothers_prefix_loses_it() -> None:
    made = check()
    thief = node("thief", "192.0.2.66", "10.244.1.0/24", "10.244.66.0/24")
    made.put(thief)
    assert believed(made)["thief"] == thief  # as far as anybody knows
    made.put(A)
    settle(made, "a", A)
    settle(made, "thief", node("thief", "192.0.2.66", "10.244.66.0/24"))
    assert {n: [*map(str, of.pod_cidrs)] for n, of in believed(made).items()} == {
        "a": ["10.244.1.0/24"], "thief": ["10.244.66.0/24"], ME: ["10.244.9.0/24"],
    }  # fmt: skip


def test_a_doubt_stays_when_the_claim_returns_to_what_was_believed() -> None:
    made = check()
    thief = node("thief", "192.0.2.66", "10.244.1.0/24")
    made.put(thief)
    made.put(A)
    made.put(node("thief", "192.0.2.9", "10.244.1.0/24"))
    made.put(thief)
    settle(made, "a", A)
    assert made.waiting == (thief,)
    settle(made, "thief", None)
    assert believed(made) == {"a": A, ME: MINE}


def test_what_is_mine_is_never_asked_of_me() -> None:
    made = check()
    made.put(node("b", "192.0.2.9", "10.244.9.0/24"))
    assert [c.name for c in made.waiting] == ["b"]
    settle(made, "b", B)
    assert believed(made) == {"b": B, ME: MINE}


def test_who_has_mine_before_i_know_of_it_is_asked_about() -> None:
    made = ClaimCheck(ME)
    thief = node("thief", "192.0.2.66", "10.244.9.0/24")
    made.put(thief)
    made.put_own(MINE)
    assert made.waiting == (thief,)
    settle(made, "thief", None)
    assert believed(made) == {ME: MINE}


def test_claims_for_me_are_not_taken() -> None:
    made = check()
    made.put(node(ME, "198.51.100.1", "10.244.1.0/24"))
    made.drop(ME)
    made.replace([])
    assert made.nodes == (MINE,)


def test_of_two_that_come_together_neither_was_first() -> None:
    made = check()
    thief = node("a", "192.0.2.1", "10.244.2.0/24")
    made.replace([B, thief])
    assert believed(made) == {ME: MINE}
    assert {c.name for c in made.waiting} == {"a", "b"}
    settle(made, "a", A)
    settle(made, "b", B)
    assert believed(made) == {"a": A, "b": B, ME: MINE}


def test_who_is_known_stays_while_a_list_disputes_it() -> None:
    made = check(B)
    made.replace([node("a", "192.0.2.1", "10.244.2.0/24"), B])
    assert believed(made) == {"b": B, ME: MINE}
    assert [c.name for c in made.waiting] == ["a"]


def test_who_is_in_a_list_no_more_is_gone_unless_it_cannot_be_read() -> None:
    made = check(A, B)
    made.replace([], ["b"])
    assert believed(made) == {"b": B, ME: MINE}
    assert made.is_settled


def test_a_claim_of_no_node_stays_denied_until_it_is_asked_again() -> None:
    made = check(B)
    ghost = node("a", "192.0.2.1", "10.244.2.0/24")
    made.put(ghost)
    settle(made, "a", None)
    made.drop("b")
    made.put(ghost)
    assert believed(made) == {ME: MINE}
    assert not made.waiting
    made.reopen_denied()
    settle(made, "a", ghost)
    assert believed(made) == {"a": ghost, ME: MINE}


THIEF = node("thief", "192.0.2.66", "10.244.1.0/24")


@pytest.mark.parametrize(
    "thief",
    [THIEF, node("thief", "192.0.2.66", "10.244.1.64/26"), node("thief", "192.0.2.1")],
)
def test_what_is_left_without_an_object_is_still_its_nodes(thief: Node) -> None:
    """A daemon that was stopped, or whose object an administrator deleted: its pods live on."""
    made = check(A)
    made.drop("a")
    made.put(thief)
    assert believed(made) == {ME: MINE}
    settle(made, "thief", None)
    assert believed(made) == {ME: MINE}
    made.put(A)
    assert believed(made) == {"a": A, ME: MINE}
    assert not made.waiting


def test_who_is_missing_in_a_list_is_remembered_as_well() -> None:
    made = check(A)
    made.replace([THIEF, B])
    assert believed(made) == {"b": B, ME: MINE}
    assert made.waiting == (THIEF,)


def test_an_heir_with_its_nodes_word_needs_no_other() -> None:
    made = check(A)
    made.drop("a")
    heir = node("heir", "192.0.2.5", "10.244.1.0/24")
    made.put(heir)
    settle(made, "heir", heir)
    assert believed(made) == {"heir": heir, ME: MINE}
    made.drop("heir")
    made.put(heir)
    assert believed(made) == {"heir": heir, ME: MINE}


def test_what_an_earlier_daemon_knew_counts_in_a_conflict_and_is_not_routed() -> None:
    made = check()
    made.remember([A, B])
    assert made.nodes == (MINE,)
    made.replace([A, THIEF])
    assert believed(made) == {"a": A, ME: MINE}
    assert made.waiting == (THIEF,)


@pytest.mark.parametrize("large", ["10.244.128.0/17", "10.244.4.0/23", "fd00::/56"])
def test_more_than_any_node_has_is_asked_about(large: str) -> None:
    for made in (check(), ClaimCheck(ME)):
        ghost = node("ghost", "192.0.2.66", large)
        made.replace([A, ghost])
        assert "ghost" not in believed(made)
        assert "a" in believed(made)
        assert made.waiting == (ghost,)
        assert settle(made, "ghost", None) == "there is no such Node"
        assert "ghost" not in believed(made)


def test_one_nodes_word_for_a_size_is_enough_for_all_that_have_it() -> None:
    made = check()
    large = [node(f"n{n}", f"192.0.2.{n}", f"10.244.{n}.0/23") for n in (20, 22, 24)]
    made.replace(large)
    assert made.waiting == tuple(large)
    settle(made, "n22", large[1])
    assert made.nodes == (MINE, *large)
    assert made.is_settled


def test_where_nodes_get_less_than_usual_the_usual_is_large() -> None:
    made = ClaimCheck(ME)
    made.put_own(node(ME, "192.0.2.9", "10.244.9.0/26"))
    made.put(A)
    assert made.waiting == (A,)


def test_of_those_who_left_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.sources.kubernetes.claim_check.FORMER_MAX", 1)
    made = check(A, B)
    made.drop("a")
    made.drop("b")
    made.put(node("c", "192.0.2.3", "10.244.1.0/24"))
    assert "c" in believed(made)
    made.put(node("d", "192.0.2.4", "10.244.2.0/24"))
    assert "d" not in believed(made)


def test_who_had_what_another_one_proved_to_have_is_asked_about() -> None:
    made = check(A)
    made.drop("a")
    heir = node("heir", "192.0.2.5", "10.244.1.0/24")
    made.put(heir)
    settle(made, "heir", heir)
    made.put(A)
    assert made.waiting == (A,)
    assert believed(made) == {"heir": heir, ME: MINE}


def test_who_returns_while_it_is_in_doubt_stays_in_doubt() -> None:
    made = check()
    thief = node("thief", "192.0.2.66", "10.244.1.0/24")
    made.put(thief)
    made.put(A)
    settle(made, "a", A)
    assert [*made.waiting] == [thief]
    made.drop("thief")
    made.put(thief)
    assert [*made.waiting] == [thief]
    assert believed(made) == {"a": A, ME: MINE}


def test_a_node_without_an_address_is_not_routed() -> None:
    made = check(A)
    made.put(THIEF)
    assert made.settle(THIEF, NodeRecord("thief", "u", (), ())) == "its Node has no address"
    assert believed(made) == {"a": A, ME: MINE}


VICTIM = node("victim", "192.0.2.5", "10.244.5.0/24")
# Its kubelet may write any address into its Node.
EVIL = node("a-evil", "192.0.2.5", "10.244.66.0/24")
PREFIXES = {n.name: n.pod_cidrs for n in (A, B, VICTIM, EVIL, MINE)}
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


def ask(made: ClaimCheck, **nodes: tuple[str, str]) -> None:
    """Settle all that waits. nodes: by name, `_` for `-`, the address of each Node and its age."""
    found = {name.replace("_", "-"): of for name, of in nodes.items()}

    def read(name: str) -> NodeRecord | None:
        if name not in found:
            return None
        (address, created), cidrs = found[name], PREFIXES[name]
        return NodeRecord(name, "uid", (ip_address(address),), cidrs, created=created)

    for _ in range(20):
        if not made.waiting:
            return
        claim, rivals = made.waiting[0], dict[str, NodeRecord | None]()
        says = read(claim.name)
        while name := made.next_rival(claim, says, rivals):
            rivals[name] = read(name)
        made.settle(claim, says, rivals)
    pytest.fail(f"claims are settled for ever: {made.waiting}")


def routed(made: ClaimCheck) -> set[str]:
    """The nodes that a daemon routes which adopts nothing."""
    nodes = [replace(n, name=clusters.ME) if n.name == ME else n for n in made.nodes]
    host = clusters.host_state("192.0.2.9/24")
    planner = Planner(clusters.settings())
    return set(clusters.planned(planner, clusters.cluster(*nodes), host).peers)


@pytest.mark.parametrize("evil_age", [OLD, NEW])
def test_an_address_stays_with_the_node_that_has_it(evil_age: str) -> None:
    made = check(VICTIM)
    made.put(EVIL)
    ask(made, victim=("192.0.2.5", OLD), a_evil=("192.0.2.5", evil_age))
    assert believed(made) == {"victim": VICTIM, ME: MINE}
    assert routed(made) == {"victim"}
    # Nor by a claim that is not as its Node says either.
    made.put(replace(EVIL, addresses=A.addresses, pod_cidrs=VICTIM.pod_cidrs))
    ask(made, victim=("192.0.2.5", OLD), a_evil=("192.0.2.5", evil_age))
    assert believed(made)["victim"] == VICTIM
    assert routed(made) == {"victim"}


@pytest.mark.parametrize(("evil_age", "winner"), [(NEW, "victim"), (OLD, "a-evil")])
def test_of_two_new_nodes_with_one_address_the_older_has_it(evil_age: str, winner: str) -> None:
    made = check()
    made.replace([EVIL, VICTIM])
    ask(made, victim=("192.0.2.5", "2026-01-15T00:00:00Z"), a_evil=("192.0.2.5", evil_age))
    assert believed(made).keys() == {winner, ME}
    assert routed(made) == {winner}


def test_an_address_that_its_node_has_lost_is_free() -> None:
    """One that left: its Node went, or has another address by now."""
    for left in ({}, {"victim": ("192.0.2.6", OLD)}):
        made = check(VICTIM)
        made.put(EVIL)
        ask(made, victim=("192.0.2.5", OLD), a_evil=("192.0.2.5", NEW))
        made.reopen_denied()
        ask(made, a_evil=("192.0.2.5", NEW), **left)
        assert believed(made)["a-evil"] == EVIL
        assert EVIL.addresses[0] not in believed(made).get("victim", MINE).addresses


def test_two_nodes_swap_their_addresses() -> None:
    """By DHCP: for a moment both Nodes have one of them."""
    made = check(A, B)
    made.put(replace(A, addresses=B.addresses))
    ask(made, a=("192.0.2.2", OLD), b=("192.0.2.2", NEW))
    assert believed(made) == {"b": B, ME: MINE}
    made.put(replace(B, addresses=A.addresses))
    ask(made, a=("192.0.2.2", OLD), b=("192.0.2.1", NEW))
    assert {n.name: str(n.addresses[0]) for n in made.nodes} == {
        "a": "192.0.2.2", "b": "192.0.2.1", ME: "192.0.2.9",
    }  # fmt: skip
    assert made.is_settled


def test_an_address_of_mine_is_taken_by_nobody() -> None:
    made = check()
    made.put(replace(EVIL, addresses=MINE.addresses))
    ask(made, me=("192.0.2.9", NEW), a_evil=("192.0.2.9", OLD))
    assert believed(made) == {ME: MINE}


NAMES = [ME, "a", "b", "c", "d"]
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
    | st.tuples(st.sampled_from(["drop", "settle"]), st.sampled_from(NAMES)),
    max_size=25,
)
# What Nodes say: everybody has something of one's own; c is no node at all; the kubelet of d, which
# had no address before, writes that of b.
TRUTH = {
    ME: MINE,
    "a": node("a", "192.0.2.1", "10.244.0.0/24"),
    "b": node("b", "192.0.2.2", "10.244.1.0/24", "fd00::/64"),
    "c": None,
    "d": node("d", "192.0.2.2"),
}


def apply(made: ClaimCheck, steps: Iterable[tuple[str, object]]) -> set[str]:
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
        else:
            settle_all(made, str(what))
    return claimed


def settle_all(made: ClaimCheck, *names: str) -> None:
    """Answer for these nodes, if they are asked about."""
    for claim in made.waiting:
        if claim.name in names:
            rivals, says = dict[str, NodeRecord | None](), truth_of(claim.name)
            while name := made.next_rival(claim, says, rivals):
                rivals[name] = truth_of(name)
            made.settle(claim, says, rivals)


def truth_of(name: str) -> NodeRecord | None:
    truth = TRUTH[name]
    return record(truth) if truth else None


@given(STEPS)
def test_own_is_own_whatever_is_claimed(steps: list[tuple[str, object]]) -> None:
    made = check()
    apply(made, steps)
    assert believed(made)[ME] == MINE
    assert all(claim.name != ME for claim in made.waiting)


@given(STEPS)
def test_a_nodes_own_claim_stands_whatever_others_claim(steps: list[tuple[str, object]]) -> None:
    """As long as its object stays as it is, and whatever is asked of whom meanwhile."""
    truth = TRUTH["b"]
    assert truth is not None
    made = check(truth)
    kept: list[tuple[str, object]] = []
    for step, what in steps:
        if isinstance(what, list):
            kept.append((step, [*(n for n in what if n.name != "b"), truth]))
        elif what != "b" and not (isinstance(what, Node) and what.name == "b"):
            kept.append((step, what))
    apply(made, kept)
    assert believed(made)["b"] == truth


@given(STEPS)
def test_once_all_are_asked_nobody_has_what_another_node_has(
    steps: list[tuple[str, object]],
) -> None:
    made = check()
    claimed = apply(made, steps)
    while made.waiting:
        settle_all(made, *NAMES)
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
