"""What check-config says of a list of nodes, against what the plan makes of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.model import Node
from daemon.routing.conflicts import find_contradictions
from daemon.routing.planner import Planner
from tests.unit.daemon.clusters import ME, cluster, facts, node, settings

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
    chosen = settings(f"backend: {backend}\n")
    snapshot = cluster(node(ME, own, "10.244.9.0/24"), *others)
    # All nodes are on one link: nothing else can be in the way.
    here = facts("192.0.2.1/24", "2001:db8::1/64")
    refused = {r.node for r in Planner(chosen).plan(snapshot, here).refused}
    said = {text.partition(":")[0] for text in find_contradictions(chosen, snapshot)}
    assert refused <= said
    # Beside them only who claims what another claims, and gets it for that one's other faults.
    for name in said - refused:
        (found,) = (n for n in others if n.name == name)
        assert any(_quarrel(found, n) for n in snapshot.nodes if n is not found)


def _quarrel(one: Node, other: Node) -> bool:
    pairs = [(p, q) for p in one.pod_cidrs for q in other.pod_cidrs if p.version == q.version]
    return bool(set(one.addresses) & set(other.addresses)) or any(p.overlaps(q) for p, q in pairs)


def test_all_is_right_with_a_right_list() -> None:
    snapshot = cluster(node(1), node(2), node(3))
    assert list(find_contradictions(settings(), snapshot)) == []
