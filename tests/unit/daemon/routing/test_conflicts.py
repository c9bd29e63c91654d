"""Claims against a naive decision that looks at everything each time."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daemon.routing.conflicts
from daemon.prefix_set import Block, block_of
from daemon.routing.conflicts import Claim, Claims

ME = "me"
names = st.sampled_from(("a", "b", ME, "z"))
blocks = st.builds(
    lambda number, bits: block_of(ip_network((number << 27, bits), strict=False)),
    st.integers(0, 31),
    st.integers(1, 5),
)
claims_of = st.dictionaries(names, st.lists(blocks, max_size=4).map(tuple))


Blocks = tuple[Block, ...]


def decide(claims: Mapping[str, Blocks], owners: Mapping[Block, str]) -> dict[Block, str]:
    """Which node owns what: own claims come first, then the owner's, then by name."""
    every = {(name, block) for name, own in claims.items() for block in own}
    kept = {(name, block) for block, name in owners.items() if name != ME}
    rank = sorted(every, key=lambda c: (c[0] != ME, c not in kept, c[0], c[1]))
    given: dict[Block, str] = {}
    for name, block in rank:
        if not any(overlap(block, other) for other in given):
            given[block] = name
    return given


def overlap(one: Block, other: Block) -> bool:
    return one.first <= other.last and other.first <= one.last


def outcome(claims: Claims, of: Mapping[str, tuple[Block, ...]]) -> dict[tuple[str, Block], object]:
    """Per claim, whether it got its block or which claim it lost against."""
    return {
        (name, block): claims.winner(name, block) or claims.owns(name, block)
        for name, own in of.items()
        for block in own
    }


@pytest.mark.parametrize("few", [64, -1])
@settings(max_examples=300)
@given(st.lists(claims_of, min_size=1, max_size=5))
def test_changes_lead_where_a_decision_from_nothing_leads(
    few: int, steps: list[dict[str, tuple[Block, ...]]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daemon.routing.conflicts, "_FEW", few)  # -1: all at once, however few
        follow(steps)


def follow(steps: list[dict[str, tuple[Block, ...]]]) -> None:
    claims = Claims(ME)
    owners: dict[Block, str] = {}
    before: dict[tuple[str, Block], object] = {}
    for step in steps:
        for name in ("a", "b", ME, "z"):
            claims.put(name, step.get(name, ()))
        changed = claims.settle()
        owners = decide(step, owners)
        assert {s: n for n, own in step.items() for s in own if claims.owns(n, s)} == owners
        assert claims.owned() == tuple(sorted(owners))
        after = outcome(claims, step)
        told = {n for n, s in after if before.get((n, s)) != after[n, s]}
        assert told <= changed
        fresh = Claims(ME, owners)
        for name, own in step.items():
            fresh.put(name, own)
        fresh.settle()
        assert outcome(fresh, step) == after
        before = after


@given(claims_of)
def test_losers_name_a_winner_that_is_in_their_way(of: dict[str, tuple[Block, ...]]) -> None:
    claims = Claims(ME)
    for name, own in of.items():
        claims.put(name, own)
    claims.settle()
    for (name, block), result in outcome(claims, of).items():
        if isinstance(result, Claim):
            assert claims.owns(result.node, result.block)
            assert overlap(result.block, block)
        else:
            assert result is True, (name, block)


def block(text: str) -> Block:
    return block_of(ip_network(text))


def test_the_holder_keeps_what_an_earlier_name_claims_later() -> None:
    claims = Claims(ME)
    claims.put("z", [block("10.0.0.0/24")])
    claims.settle()
    claims.put("a", [block("10.0.0.0/16"), block("10.1.0.0/16")])
    assert claims.settle() == {"a"}
    assert claims.winner("a", block("10.0.0.0/16")) == Claim("z", block("10.0.0.0/24"))
    assert claims.owns("a", block("10.1.0.0/16"))
    claims.put("z", ())
    assert claims.settle() == {"a"}
    assert claims.owns("a", block("10.0.0.0/16"))


def test_own_claims_win_against_whoever_has_it() -> None:
    claims = Claims(ME, {block("10.0.0.0/24"): "a"})
    claims.put("a", [block("10.0.0.0/24")])
    claims.settle()
    assert claims.owns("a", block("10.0.0.0/24"))
    claims.put(ME, [block("10.0.0.0/23")])
    assert claims.settle() == {"a", ME}
    assert claims.winner("a", block("10.0.0.0/24")) == Claim(ME, block("10.0.0.0/23"))


def test_whoever_had_it_at_the_start_and_no_longer_claims_it_does_not_come_back_to_it() -> None:
    claims = Claims(ME, {block("10.0.0.0/24"): "z"})
    claims.put("q", [block("10.9.0.0/24")])
    claims.settle()
    claims.put("z", [block("10.0.0.0/24")])
    claims.put("a", [block("10.0.0.0/24")])
    claims.settle()
    assert claims.owns("a", block("10.0.0.0/24"))


def test_a_change_elsewhere_tells_nobody_else() -> None:
    claims = Claims(ME)
    for number in range(200):
        claims.put(f"n{number}", [block(f"10.0.{number}.0/24")])
    assert len(claims.settle()) == 200
    claims.put("n7", [block("10.1.7.0/24")])
    assert claims.settle() == {"n7"}
    assert claims.settle() == set()
