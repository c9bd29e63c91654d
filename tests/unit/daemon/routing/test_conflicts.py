"""Claims against a naive decision that looks at everything each time."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daemon.routing.conflicts
from daemon.prefix_set import Span, span_of
from daemon.routing.conflicts import Claim, Claims

ME = "me"
names = st.sampled_from(("a", "b", ME, "z"))
spans = st.builds(
    lambda number, bits: span_of(ip_network((number << 27, bits), strict=False)),
    st.integers(0, 31),
    st.integers(1, 5),
)
claims_of = st.dictionaries(names, st.lists(spans, max_size=4).map(tuple))


def decide(claims: Mapping[str, tuple[Span, ...]], holders: Mapping[Span, str]) -> dict[Span, str]:
    """Who gets what: own ones first, then who has it, then by name."""
    every = {(name, span) for name, own in claims.items() for span in own}
    kept = {(name, span) for span, name in holders.items() if name != ME}
    rank = sorted(every, key=lambda c: (c[0] != ME, c not in kept, c[0], c[1]))
    given: dict[Span, str] = {}
    for name, span in rank:
        if not any(overlap(span, other) for other in given):
            given[span] = name
    return given


def overlap(one: Span, other: Span) -> bool:
    return one.first <= other.last and other.first <= one.last


def outcome(claims: Claims, of: Mapping[str, tuple[Span, ...]]) -> dict[tuple[str, Span], object]:
    """Per claim, whether it got its span or which claim it lost against."""
    return {
        (name, span): claims.loss(name, span) or claims.holds(name, span)
        for name, own in of.items()
        for span in own
    }


@pytest.mark.parametrize("few", [64, -1])
@settings(max_examples=300)
@given(st.lists(claims_of, min_size=1, max_size=5))
def test_changes_lead_where_a_decision_from_nothing_leads(
    few: int, steps: list[dict[str, tuple[Span, ...]]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(daemon.routing.conflicts, "_FEW", few)  # -1: all at once, however few
        follow(steps)


def follow(steps: list[dict[str, tuple[Span, ...]]]) -> None:
    claims = Claims(ME)
    holders: dict[Span, str] = {}
    before: dict[tuple[str, Span], object] = {}
    for step in steps:
        for name in ("a", "b", ME, "z"):
            claims.put(name, step.get(name, ()))
        changed = claims.settle()
        holders = decide(step, holders)
        assert {s: n for n, own in step.items() for s in own if claims.holds(n, s)} == holders
        assert claims.held() == tuple(sorted(holders))
        after = outcome(claims, step)
        told = {n for n, s in after if before.get((n, s)) != after[n, s]}
        assert told <= changed
        fresh = Claims(ME, holders)
        for name, own in step.items():
            fresh.put(name, own)
        fresh.settle()
        assert outcome(fresh, step) == after
        before = after


@given(claims_of)
def test_losers_name_a_winner_that_is_in_their_way(of: dict[str, tuple[Span, ...]]) -> None:
    claims = Claims(ME)
    for name, own in of.items():
        claims.put(name, own)
    claims.settle()
    for (name, span), result in outcome(claims, of).items():
        if isinstance(result, Claim):
            assert claims.holds(result.node, result.span)
            assert overlap(result.span, span)
        else:
            assert result is True, (name, span)


def span(text: str) -> Span:
    return span_of(ip_network(text))


def test_the_holder_keeps_what_an_earlier_name_claims_later() -> None:
    claims = Claims(ME)
    claims.put("z", [span("10.0.0.0/24")])
    claims.settle()
    claims.put("a", [span("10.0.0.0/16"), span("10.1.0.0/16")])
    assert claims.settle() == {"a"}
    assert claims.loss("a", span("10.0.0.0/16")) == Claim("z", span("10.0.0.0/24"))
    assert claims.holds("a", span("10.1.0.0/16"))
    claims.put("z", ())
    assert claims.settle() == {"a"}
    assert claims.holds("a", span("10.0.0.0/16"))


def test_own_claims_win_against_whoever_has_it() -> None:
    claims = Claims(ME, {span("10.0.0.0/24"): "a"})
    claims.put("a", [span("10.0.0.0/24")])
    claims.settle()
    assert claims.holds("a", span("10.0.0.0/24"))
    claims.put(ME, [span("10.0.0.0/23")])
    assert claims.settle() == {"a", ME}
    assert claims.loss("a", span("10.0.0.0/24")) == Claim(ME, span("10.0.0.0/23"))


def test_whoever_had_it_at_the_start_and_no_longer_claims_it_does_not_come_back_to_it() -> None:
    claims = Claims(ME, {span("10.0.0.0/24"): "z"})
    claims.put("q", [span("10.9.0.0/24")])
    claims.settle()
    claims.put("z", [span("10.0.0.0/24")])
    claims.put("a", [span("10.0.0.0/24")])
    claims.settle()
    assert claims.holds("a", span("10.0.0.0/24"))


def test_a_change_elsewhere_tells_nobody_else() -> None:
    claims = Claims(ME)
    for number in range(200):
        claims.put(f"n{number}", [span(f"10.0.{number}.0/24")])
    assert len(claims.settle()) == 200
    claims.put("n7", [span("10.1.7.0/24")])
    assert claims.settle() == {"n7"}
    assert claims.settle() == set()
