"""Claims against a naive decision on everything; what check-config finds, against a plan."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.model import Node
from daemon.prefix_set import Block, block_of
from daemon.routing.conflicts import BlockClaim, Claims, find_contradictions
from daemon.routing.planner import Planner
from tests.unit.daemon.clusters import ME as HERE
from tests.unit.daemon.clusters import cluster, host_state, node, planned
from tests.unit.daemon.clusters import settings as settings_of

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


@settings(max_examples=300)
@given(st.lists(claims_of, min_size=1, max_size=5))
def test_changes_lead_where_a_decision_from_nothing_leads(
    steps: list[dict[str, tuple[Block, ...]]],
) -> None:
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
        decided = {n for n, s in after if before.get((n, s)) != after[n, s]}
        assert decided <= changed
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
        if isinstance(result, BlockClaim):
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
    assert claims.winner("a", block("10.0.0.0/16")) == BlockClaim("z", block("10.0.0.0/24"))
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
    assert claims.winner("a", block("10.0.0.0/24")) == BlockClaim(ME, block("10.0.0.0/23"))


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


# -- what check-config finds

ADDRESSES = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3"]
CIDRS = ["10.244.1.0/24", "10.244.1.0/25", "10.244.2.0/24", "10.244.0.0/16", "fd00::/64"]


def peers(names: list[str]) -> st.SearchStrategy[list[Node]]:
    def one(name: str) -> st.SearchStrategy[Node]:
        addresses = st.sampled_from([*ADDRESSES, "192.0.2.2 2001:db8::2", "192.0.2.3 2001:db8::3"])
        return st.builds(node, st.just(name), addresses, st.sampled_from(CIDRS))

    return st.tuples(*map(one, names)).map(list)


@given(
    peers(["a", "b", "node-2"]),
    st.sampled_from(["vxlan", "host-gw", "hybrid", "none"]),
    st.sampled_from(["192.0.2.1", "192.0.2.1 2001:db8::1"]),
)
def test_it_finds_what_the_plan_refuses(others: list[Node], backend: str, own: str) -> None:
    chosen = settings_of(f"backend: {backend}\n")
    snapshot = cluster(node(HERE, own, "10.244.9.0/24"), *others)
    # All nodes are on one link: nothing else can be in the way.
    here = host_state("192.0.2.1/24", "2001:db8::1/64")
    refused = {r.node for r in planned(Planner(chosen), snapshot, here).refused}
    found_of = {text.partition(":")[0] for text in find_contradictions(chosen, snapshot)}
    assert refused <= found_of
    # Beside them only who claims what another claims, and gets it for that one's other faults.
    for name in found_of - refused:
        (found,) = (n for n in others if n.name == name)
        assert any(_conflict(found, n) for n in snapshot.nodes if n is not found)


def _conflict(one: Node, other: Node) -> bool:
    pairs = [(p, q) for p in one.pod_cidrs for q in other.pod_cidrs if p.version == q.version]
    return bool(set(one.addresses) & set(other.addresses)) or any(p.overlaps(q) for p, q in pairs)


def test_all_is_right_with_a_right_list() -> None:
    snapshot = cluster(node(1), node(2), node(3))
    assert list(find_contradictions(settings_of(), snapshot)) == []
