"""Thousands of peers in a simulated network: what is sent, how often, and what is reported."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.model import Node
from daemon.probes.diagnosis import LocalNode, Rejection
from daemon.probes.peer import MISSES
from daemon.probes.peers import TIMEOUT, InFlight, Peers
from daemon.probes.prober import ITERATIONS
from daemon.probes.protocol import Packet, Path
from daemon.probes.report import PeerHealth, Reason, State
from daemon.probes.schedule import Target
from daemon.routing.backends.vxlan import vtep_mac
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route

LOCAL = LocalNode({Path.POD4: "10.255.0.0", Path.UNDERLAY4: "192.0.2.1"}, 1450, 50, 8473, 8472)
PROBE = Packet(False, 48, 7)
STAGE_MOST = 3
"""Probes in a stage of the inspection of a peer of one family, at most."""
LEGAL = {
    State.PENDING: {State.CONNECTING},
    State.CONNECTING: {State.ESTABLISHED, State.FAILED},
    State.ESTABLISHED: {State.RETRYING},
    State.RETRYING: {State.ESTABLISHED, State.FAILED},
    State.FAILED: {State.ESTABLISHED},
}


def make(number: int, move: int = 0) -> tuple[Node, tuple[Entry, ...]]:
    """A node and what leads to it; move: another address."""
    address = ip_address("198.18.0.1") + number + 10000 * move
    prefix = ip_network((int(ip_address("10.0.0.0")) + (number << 8), 24))
    mac = vtep_mac(address)
    first = prefix.network_address
    node = Node(f"node-{number}", (address,), (prefix,))
    return node, (
        FdbEntry("v", mac, address),
        Neighbour("v", first, mac),
        Route(prefix, "v", via=first, protocol=RTPROT_PODWIRE_PEERS, onlink=True),
    )


@dataclass
class World:
    """A network with a mood for each node: "well", "gone", "blocked", "silent", "narrow"."""

    interval: float = 10.0
    budget: float = 20.0
    now: float = 1000.0
    step: float = 0.25
    moods: dict[str, str] = field(default_factory=dict)
    sent: deque[tuple[float, InFlight]] = field(default_factory=deque)
    states: dict[str, State] = field(default_factory=dict)
    fates: Counter[tuple[State, State]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.entries: dict[str, tuple[Entry, ...]] = {}
        self.numbers = itertools.count(1)
        self.peers = Peers(self.interval, self.budget, Random(7), lambda: self.now)
        self.peers.local = LOCAL

    def list(self, *numbers: int, mood: str = "well", move: int = 0) -> None:
        for number in numbers:
            node, leads = make(number, move)
            self.nodes[node.name], self.entries[node.name] = node, leads
            self.moods.setdefault(node.name, mood)
        self.update()

    def drop(self, name: str) -> None:
        del self.entries[name]
        self.states.pop(name, None)
        self.update()

    def update(self) -> None:
        self.peers.update(dict(self.nodes), dict(self.entries), self.now)

    def run(self, seconds: float, step: float = 0.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += step or self.step
            for probe in self.peers.next_probes(self.now, lambda: next(self.numbers)):
                self.sent.append((self.now, probe))
                self.answer(probe)
            self.check()

    def answer(self, probe: InFlight) -> None:
        mood, target, packet = self.moods[probe.peer.name], probe.target, probe.packet
        if mood == "gone":
            by = Rejection("port", "refused", target.address)
            self.peers.reject(target, packet.nonce, by, self.now)
        elif (
            mood == "well"
            or (mood == "blocked" and not target.path.is_pod)
            or (mood == "narrow" and packet.size <= 1400)
        ):
            self.reply(target, packet)

    def reply(self, target: Target, packet: Packet) -> None:
        answer = packet._replace(is_answer=True)
        assert self.peers.receive_answer(target, answer, self.now + 0.001, self.now)

    def check(self) -> None:
        """What always holds."""
        reported = {health.name: health for health in self.peers}
        assert reported.keys() == self.entries.keys()
        assert Counter(h.state for h in reported.values()) == +Counter(self.peers.counts)
        degraded = {State.CONNECTING, State.RETRYING, State.FAILED}
        assert {h.name: h for h in self.peers.degraded()} == {
            name: health for name, health in reported.items() if health.state in degraded
        }
        for name, health in reported.items():
            before = self.states.get(name, State.PENDING)
            if health.state is not before:
                # Between two checks there may be two steps.
                via = {after for step in LEGAL[before] for after in (step, *LEGAL[step])}
                assert health.state in via, (before, health.state)
            self.states[name] = health.state
            assert (health.state is State.ESTABLISHED) <= (health.reason is Reason.NONE)
            assert (health.state is State.FAILED) <= bool(health.reason and health.detail)

    def state(self, number: int) -> PeerHealth:
        return next(h for h in self.peers if h.name == f"node-{number}")


MOODS = {
    "well": (State.ESTABLISHED, Reason.NONE),
    "gone": (State.FAILED, Reason.DAEMON_GONE),
    "blocked": (State.FAILED, Reason.OVERLAY_BLOCKED),
    "silent": (State.FAILED, Reason.UNDERLAY_DOWN),
    "narrow": (State.FAILED, Reason.MTU),
}


@pytest.mark.parametrize("mood", MOODS)
def test_every_condition_is_diagnosed(mood: str) -> None:
    world = World()
    world.list(1, mood=mood)
    world.run(60)
    found = world.state(1)
    assert (found.state, found.reason) == MOODS[mood]
    if mood == "well":
        assert (found.path_mtu, round(found.rtt or 0, 6)) == (1450, 0.001)
    if mood == "narrow":
        assert 1392 <= found.path_mtu <= 1400


changes = st.lists(
    st.tuples(
        st.integers(0, 6),
        st.sampled_from([*MOODS, "leave", "move"]),
        st.floats(0.2, 30),
    ),
    max_size=12,
)


@given(changes, st.sampled_from([1.0, 5.0, 20.0, 200.0]), st.sampled_from([1.0, 10.0]))
@settings(max_examples=40)
def test_any_course_of_events_is_diagnosed_within_the_budget(
    story: list[tuple[int, str, float]], budget: float, interval: float
) -> None:
    world = World(interval, budget)
    world.list(*range(7))
    began, moves = world.now, itertools.count(1)
    for number, change, seconds in story:
        name = f"node-{number}"
        if change == "leave":
            if name in world.entries:
                world.drop(name)
        elif change == "move":
            world.states.pop(name, None)
            world.list(number, move=next(moves))
        else:
            world.moods[name] = change
        world.run(seconds)
        assert len(world.sent) <= budget * (world.now - began)
        times = [when for when, _probe in world.sent]
        for start in times[::7]:
            within = sum(start <= when <= start + 5.0 for when in times)
            assert within <= 5.0 * budget + max(1.0, 0.5 * budget)
    # Long enough for the slowest look, and for all of them to have their turn.
    world.run(8 * interval + 30 * 7 * STAGE_MOST / budget + 60)
    for health in world.peers:
        assert (health.state, health.reason) == MOODS[world.moods[health.name]], health


@pytest.mark.parametrize("step", [0.25, 1 / ITERATIONS], ids=["idle", "busy"])
def test_five_thousand_peers_are_probed_within_the_budget(step: float) -> None:
    """Also at the pace that a prober has under load."""
    world = World(step=step)
    world.list(*range(5000))
    began = world.now
    world.check = lambda: None  # type: ignore[method-assign]
    world.run(255)
    assert world.peers.counts[State.ESTABLISHED] == 5000
    assert len(world.sent) <= 20 * (world.now - began)
    world.sent.clear()
    world.run(260)
    seen = {probe.peer.name for _when, probe in world.sent}
    assert len(seen) == 5000
    # Hundreds that fail at once leave the others their share.
    for number in range(500):
        world.moods[f"node-{number}"] = "silent"
    world.run(400)
    world.sent.clear()
    world.run(400)
    well = {p.peer.name for _when, p in world.sent if world.moods[p.peer.name] == "well"}
    assert len(well) >= 0.25 * 20 * 400 * 0.9
    assert world.peers.counts[State.FAILED] > 250


def test_of_a_thousand_that_do_not_answer_the_first_have_failed_soon() -> None:
    """Not all of them at the end, after three rounds."""
    world = World()
    world.list(*range(1000), mood="silent")
    world.check = lambda: None  # type: ignore[method-assign]
    world.run(150)
    assert world.peers.counts[State.FAILED] > 300


def test_a_new_peer_is_not_probed_by_all_at_once() -> None:
    """Of thousands of nodes that learn of one at the same moment."""
    firsts = []
    for seed in range(50):
        world = World()
        world.peers = Peers(10.0, 20.0, Random(seed), lambda: 0.0)
        world.peers.local = LOCAL
        world.list(*range(200))
        world.check = lambda: None  # type: ignore[method-assign]
        world.run(15)
        firsts.append(next(when for when, p in world.sent if p.peer.name == "node-7"))
    assert max(Counter(int(when) for when in firsts).values()) < 20


def test_a_peer_that_sends_again_is_inspected_soon() -> None:
    world = World()
    world.list(1, mood="silent")
    world.run(300)
    assert world.state(1).state is State.FAILED
    world.moods["node-1"] = "well"
    world.sent.clear()
    pod = Target(Path.POD4, "10.0.1.0")
    assert world.peers.receive_probe(pod, PROBE, world.now) is not None
    world.run(1)
    assert world.state(1).state is State.ESTABLISHED


def test_peers_are_answered_and_strangers_never() -> None:
    world = World()
    world.list(1)
    for stranger in (
        Target(Path.POD4, "10.9.9.9"),
        Target(Path.POD4, "198.18.0.2"),  # a node's address, by the pod network
        Target(Path.UNDERLAY4, "10.0.1.0"),
    ):
        assert not world.peers.knows(stranger)
        assert world.peers.receive_probe(stranger, PROBE, world.now) is None
    known = Target(Path.POD4, "10.0.1.0")
    answer = world.peers.receive_probe(known, PROBE, world.now)
    assert answer == PROBE._replace(is_answer=True, received=Path.POD4.bit)


def test_an_answer_counts_once_from_where_it_was_asked() -> None:
    world = World()
    world.list(1, mood="silent")
    world.run(1)
    [(_when, probe)] = world.sent
    answer = probe.packet._replace(is_answer=True)
    elsewhere = Target(Path.UNDERLAY4, "198.18.0.2")
    for target, packet in (
        (elsewhere, answer),
        (probe.target, answer._replace(nonce=answer.nonce + 1)),
        (probe.target, answer._replace(size=48)),
    ):
        assert not world.peers.receive_answer(target, packet, world.now, world.now)
    assert world.peers.receive_answer(probe.target, answer, world.now, world.now)
    assert not world.peers.receive_answer(probe.target, answer, world.now, world.now)
    assert world.state(1).state is State.ESTABLISHED


def test_time_that_a_probe_waited_elsewhere_is_no_round_trip() -> None:
    world = World()
    world.list(1, mood="silent")
    world.run(1)
    [(_when, probe)] = world.sent
    answer = probe.packet._replace(is_answer=True, delay=400_000)
    # Read half a second after the kernel had it.
    assert world.peers.receive_answer(
        probe.target, answer, probe.sent_at + 0.403, probe.sent_at + 0.9
    )
    assert round(world.state(1).rtt or 0, 6) == 0.003


def test_connections_that_end_are_counted() -> None:
    world = World()
    world.list(1, 2, 3, 4)
    world.run(30)
    assert world.peers.terminated == 0
    world.moods["node-1"] = "silent"
    world.run(40)
    assert world.state(1).state is State.FAILED
    assert world.peers.terminated == 1
    world.drop("node-1")
    assert world.peers.terminated == 1  # it had ended before
    world.drop("node-2")
    assert world.peers.terminated == 2
    world.states.pop("node-3")
    world.list(3, move=1)
    assert world.peers.terminated == 3
    assert world.state(3).state is State.PENDING
    world.list(4)  # other objects, the same addresses
    assert world.state(4).state is State.ESTABLISHED


def test_addresses_that_change_hands_in_one_plan() -> None:
    world = World()
    world.list(1, 2)
    world.run(30)
    (one, leads_1), (two, leads_2) = make(1), make(2)
    swapped = (
        Node(one.name, two.addresses, two.pod_cidrs),
        Node(two.name, one.addresses, one.pod_cidrs),
    )
    world.nodes |= {node.name: node for node in swapped}
    world.entries |= {one.name: leads_2, two.name: leads_1}
    world.states.clear()
    world.update()
    world.run(30)
    assert world.peers.counts[State.ESTABLISHED] == 2


def test_a_peer_without_an_address_to_probe_is_pending() -> None:
    world = World()
    world.list(1)
    node = Node("node-9", (ip_address("2001:db8::9"),), ())
    world.nodes[node.name], world.entries[node.name] = node, ()
    world.update()
    world.run(100)
    found = world.state(9)
    assert (found.state, "it has no address to probe" in found.detail) == (State.PENDING, True)
    assert world.state(1).state is State.ESTABLISHED


def test_failing_takes_inspections_which_get_rarer() -> None:
    world = World()
    world.list(1)
    world.run(20)
    world.moods["node-1"] = "silent"
    world.sent.clear()
    world.run(600)
    looks = [when for when, probe in world.sent if not probe.target.path.is_pod]
    gaps = [after - before for before, after in itertools.pairwise(looks)]
    assert len(looks) >= MISSES + 3
    assert gaps[0] < gaps[3] < gaps[5]
    assert 45 <= gaps[-1] <= 60 * 1.2 + 2 * TIMEOUT


def test_probes_lost_to_an_overload_judge_no_peer() -> None:
    world = World()
    world.list(1, 2)
    world.run(30)
    world.moods["node-1"] = "silent"
    for _ in range(200):
        world.run(1)
        world.peers.note_overload(Path.POD4, world.now)
        world.peers.note_overload(Path.UNDERLAY4, world.now)
    assert (world.state(1).state, world.state(2).state) == (State.ESTABLISHED,) * 2
    # Once it is over, what is wrong is found, and costs as little as ever.
    world.run(60)
    assert world.state(1).state is State.FAILED
    assert world.state(2).state is State.ESTABLISHED


def test_an_overload_of_another_path_hides_nothing() -> None:
    world = World()
    world.list(1)
    world.run(30)
    world.moods["node-1"] = "gone"
    for _ in range(100):
        world.run(1)
        world.peers.note_overload(Path.POD6, world.now)
    assert world.state(1).state is State.FAILED


FORGED = Packet(False, 48, 99, received=0xF)


def forge(world: World, kind: str) -> None:
    """What anybody may send in the name of node-1."""
    for target in world.peers._peers["node-1"].targets:
        if kind == "probes":
            world.peers.receive_probe(target, FORGED, world.now)
        elif kind == "answers":
            answer = FORGED._replace(is_answer=True)
            assert not world.peers.receive_answer(target, answer, world.now, world.now)
        else:
            report = Rejection("port", "refused", target.address)
            world.peers.reject(target, FORGED.nonce, report, world.now)


@pytest.mark.parametrize("kind", ["probes", "answers", "reports"])
@pytest.mark.parametrize(
    ("mood", "state"),
    [("silent", State.FAILED), ("blocked", State.FAILED), ("well", State.ESTABLISHED)],
)
def test_forged_packets_hide_no_fault_and_make_none(kind: str, mood: str, state: State) -> None:
    world = World()
    world.list(1)
    world.run(30)
    world.moods["node-1"] = mood
    for _ in range(600):
        forge(world, kind)
        world.run(0.2, 0.2)
    assert world.state(1).state is state


def test_a_flood_in_the_name_of_a_peer_takes_no_answer_from_it() -> None:
    world = World()
    world.list(1, 2)
    for target in (Target(Path.POD4, "10.0.1.0"), Target(Path.POD4, "10.0.2.0")):
        for _ in range(500):
            assert world.peers.receive_probe(target, FORGED, world.now) is not None


def test_how_long_to_wait() -> None:
    world = World(interval=10.0, budget=2.0)
    peers = world.peers
    assert peers.wait(world.now) is None
    world.list(1, mood="silent")
    due = peers._queue.next_due()
    assert due is not None
    # A new peer within its spread; the budget has a token after half a second.
    assert peers.wait(world.now) == pytest.approx(max(due - world.now, 0.5))
    world.now = due + 1.0
    assert peers.wait(world.now) == 0.0
    [sent] = peers.next_probes(world.now, lambda: 1)
    assert peers.wait(world.now) == TIMEOUT
    assert peers.wait(world.now + 0.25) == TIMEOUT - 0.25
    assert peers.wait(world.now + 5.0) == 0.0
    # A small probe on each path follows; the budget delays the second.
    [first] = peers.next_probes(world.now + TIMEOUT, lambda: 2)
    assert (first.packet.size, first.peer) == (48, sent.peer)
    world.now += TIMEOUT
    assert len(peers._ready) == 1
    assert peers.wait(world.now) == pytest.approx(peers._budget.wait(world.now, 0.5))
    assert 0 < (peers.wait(world.now) or 0) <= 0.5


def test_a_rejection_is_that_of_a_probe_to_its_target() -> None:
    world = World()
    world.list(1, 2, mood="silent")
    world.run(1)
    nonces = {p.peer.name: nonce for nonce, p in world.peers._in_flight.items()}
    rejection = Rejection("unreachable", "no route to host", "192.0.2.254")
    one = Target(Path.POD4, "10.0.1.0")
    world.peers.reject(one, nonces["node-2"], rejection, world.now)
    world.peers.reject(one, 999, rejection, world.now)
    assert len(world.peers._in_flight) == 2
    world.peers.reject(one, nonces["node-1"], rejection, world.now)
    assert [p.peer.name for p in world.peers._in_flight.values()] == ["node-2"]


def test_every_change_has_a_new_revision() -> None:
    world = World()
    world.list(1)
    world.run(60)
    before = world.peers.revision
    world.run(100)
    assert world.peers.revision == before
    world.moods["node-1"] = "silent"
    world.run(300)
    failed = world.peers.revision
    assert failed > before
    world.run(300)
    assert world.peers.revision == failed
    world.moods["node-1"] = "blocked"  # it stays failed, for another reason
    world.run(100)
    assert world.state(1).reason is Reason.OVERLAY_BLOCKED
    assert world.peers.revision > failed
    world.update()
    assert world.peers.revision > failed + 1
