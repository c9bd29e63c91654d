"""Planning step by step against a naive decision from nothing, and against a restarted daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.model import Desired, Node, Snapshot
from daemon.routing.host_state import HostState
from daemon.routing.planner import Planner
from kernel.model import IPAddress, IPNetwork, Link, Route
from tests.unit.daemon import clusters
from tests.unit.daemon.clusters import ME, host_state, planned

NAMES = ("a", ME, "z1", "z2")
NETWORK = ip_network("10.64.0.0/10")
Claim = tuple[str, IPNetwork]

prefixes = st.builds(
    lambda number, bits: ip_network(((10 << 24) | (number << 21), bits), strict=False),
    st.integers(0, 7),
    st.integers(9, 11),
)
addresses = st.integers(1, 6).map(lambda n: ip_address(f"192.0.2.{n}"))
prefix_lists = st.lists(prefixes, max_size=3, unique=True).map(tuple)
peer_lists = st.dictionaries(st.sampled_from(NAMES), st.tuples(addresses, prefix_lists))


@dataclass(frozen=True)
class Step:
    """A cluster, and whether this node has a route of another's in the pods' range."""

    snapshot: Snapshot
    collides: bool

    @property
    def host_state(self) -> HostState:
        """The node; its own address is 192.0.2.1."""
        return host_state(routes=(Route(NETWORK, "tun0"),) if self.collides else ())


def step(peers: Mapping[str, tuple[IPAddress, tuple[IPNetwork, ...]]], collides: bool) -> Step:
    own = peers[ME][1] if ME in peers else ()
    nodes = [Node(name, (a,), p) for name, (a, p) in peers.items() if name != ME]
    return Step(Snapshot((Node(ME, (ip_address("192.0.2.1"),), own), *nodes)), collides)


steps = st.lists(st.builds(step, peer_lists, st.booleans()), min_size=1, max_size=5)


@dataclass
class Model:
    """Who has which address and prefix, decided by looking at everything."""

    addresses: dict[IPAddress, str]
    prefixes: dict[IPNetwork, str]

    def decide(self, step: Step) -> None:
        """Own claims, then holders', then by name; only nodes with an address take part."""
        claims = [(n.name, a) for n in step.snapshot.nodes for a in n.addresses]
        first = sorted(claims, key=lambda c: (c[0] != ME, self.addresses.get(c[1]) != c[0], c[0]))
        self.addresses = {address: name for name, address in reversed(first)}
        able = [n for n in step.snapshot.nodes if self.addresses[n.addresses[0]] == n.name]
        every = [(n.name, p) for n in able for p in n.pod_cidrs]
        given: dict[IPNetwork, str] = {}
        for name, prefix in sorted((c for c in every if self.may(c, step)), key=self.rank):
            if not any(prefix.overlaps(other) for other in given):
                given[prefix] = name
        self.prefixes = given

    def may(self, claim: Claim, step: Step) -> bool:
        """Whether no route of others takes a part of it, or the prefix was in use before."""
        name, prefix = claim
        held = name != ME and self.prefixes.get(prefix) == name
        taken = prefix.prefixlen <= NETWORK.prefixlen and prefix.overlaps(NETWORK)
        return held or not step.collides or not taken

    def rank(self, claim: Claim) -> tuple[bool, bool, str, int, int]:
        name, prefix = claim
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        kept = name != ME and self.prefixes.get(prefix) == name
        return name != ME, not kept, name, first, last


def granted(desired: Desired) -> dict[IPNetwork, str]:
    """Who has which prefix, read from the entries."""
    routes = {
        entry.dst: name
        for name, entries in desired.peers.items()
        for entry in entries
        if isinstance(entry, Route)
    }
    return routes | dict.fromkeys(desired.pod_cidrs, ME)


def claims_of(snapshot: Snapshot) -> set[Claim]:
    return {(node.name, prefix) for node in snapshot.nodes for prefix in node.pod_cidrs}


@settings(max_examples=300)
@given(steps)
def test_each_step_leads_where_a_decision_from_nothing_leads(steps: list[Step]) -> None:
    planner, model = Planner(clusters.settings()), Model({}, {})
    for step in steps:
        desired = planned(planner, step.snapshot, step.host_state)
        model.decide(step)
        assert granted(desired) == model.prefixes
        refused = {(r.node, r.prefix) for r in desired.refused}
        given_ = {(name, prefix) for prefix, name in granted(desired).items()}
        assert refused | given_ == claims_of(step.snapshot)
        assert not refused & given_
        assert desired.peers.keys() == {n.name for n in step.snapshot.nodes} - {ME}


def distinct(step: Step) -> Step:
    """The same with one address for each node: the entries of the kernel are unambiguous."""
    numbers = {ME: 1, "a": 2, "z1": 3, "z2": 4}
    nodes = (
        Node(n.name, (ip_address(f"192.0.2.{numbers[n.name]}"),), n.pod_cidrs)
        for n in step.snapshot.nodes
    )
    return Step(Snapshot(tuple(nodes)), step.collides)


def without_reasons(desired: Desired) -> Desired:
    """Of several reasons against a prefix the one that is named follows from what came before."""
    return replace(desired, refused=tuple(replace(r, why="", other="") for r in desired.refused))


@settings(max_examples=200)
@given(steps.map(lambda all_steps: [distinct(one) for one in all_steps]), st.booleans())
def test_a_restarted_daemon_plans_what_is_there(steps: list[Step], tunnel: bool) -> None:
    conf = clusters.settings(f"backend: {'vxlan' if tunnel else 'host-gw'}")
    planner = Planner(conf)
    for step in steps:
        desired = planned(planner, step.snapshot, step.host_state)
        found = [entry for entries in desired.peers.values() for entry in entries]
        anew = planned(Planner(conf), step.snapshot, step.host_state, found)
        assert without_reasons(anew) == without_reasons(desired)


@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_host_states_that_come_and_go_end_where_they_began(changes: list[bool]) -> None:
    planner = Planner(clusters.settings())
    snapshot = clusters.cluster(*(clusters.node(n) for n in range(1, 5)))
    first = planned(planner, snapshot, host_state())
    for more in changes:
        found = host_state(links=(Link("eth1", kind=""),), more=[("eth1", "198.51.100.1/24")])
        planned(planner, snapshot, found if more else host_state())
    assert planned(planner, snapshot, host_state()) == first
