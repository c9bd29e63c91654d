"""All peers: which probe is sent when, and what its outcome means. Pure, but for random delays.

The cost does not grow with the number of peers: at most `budget` probes a second go to all of them
together. An established peer gets one probe in an interval, or less: 5,000 peers at 20 probes a
second are probed every 250 seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from daemon.model import Node
from daemon.probes.diagnosis import (
    Answered,
    Inspection,
    LocalNode,
    Outcome,
    Probe,
    Rejection,
    judge,
    large_probe,
)
from daemon.probes.peer import RECENT, Peer
from daemon.probes.protocol import Packet, Path
from daemon.probes.report import PeerHealth, Reason, State, no_counts
from daemon.probes.schedule import Queue, Target, Targets, TokenBucket, targets_of
from kernel.model import Entry

TIMEOUT = 1.0
"""Seconds until a probe without an answer is lost."""
_BATCH = 0.5
"""Seconds whose share of the budget is sent at once: fewer wake-ups cost less. Under load there is
one in so many (prober.ITERATIONS)."""
_FAST, _SLOWEST = 0.2, 6.0
"""Intervals until the second inspection of a degraded peer, and at most between later ones."""
_EARLY = 2.0
"""Seconds at least between inspections that packets of the peer bring forward."""
_JITTER = 0.2
_NEVER = float("-inf")
_NO_TARGET = "it has no address to probe: its prefixes are refused, or of another family"
_POPS = 64
"""Peers taken from the queue at once at most: those without a target cost time, too."""


@dataclass(slots=True)
class InFlight:
    """A probe of a peer's that is sent. sent_at: corrected by the sender."""

    peer: Peer
    probe: Probe
    packet: Packet
    sent_at: float

    @property
    def target(self) -> Target:
        """Where it is sent."""
        return self.probe.target


class Peers:
    """counts: peers by state. terminated: connections that ended: the peer failed, left or moved.

    local: this node, set with each plan. blocked: why packets get nowhere on this node.
    revision: grows with every change of `counts` and `degraded`.
    """

    def __init__(
        self, interval: float, budget: float, random: Random, clock: Callable[[], float]
    ) -> None:
        """clock: seconds since 1970, for people; all other times are arguments."""
        self.local, self.blocked = LocalNode({}, 0, 0, 0, 0), ""
        self.counts, self.terminated, self.revision = no_counts(), 0, 0
        self._interval, self._random, self._clock = interval, random, clock
        self._round = interval
        self._batch = _BATCH * budget
        self._budget = TokenBucket(budget, max(1.0, self._batch), full=False)
        self._overloaded_at = dict.fromkeys(Path, _NEVER)
        self._peers: dict[str, Peer] = {}
        self._degraded: dict[str, Peer] = {}
        self._owners: dict[Path, dict[str, Peer]] = {path: {} for path in Path}
        self._queue = Queue[Peer]()
        self._ready: deque[tuple[Peer, Probe]] = deque()
        self._in_flight: dict[int, InFlight] = {}

    # The peers of the plan.

    def update(
        self, nodes: Mapping[str, Node], entries: Mapping[str, tuple[Entry, ...]], now: float
    ) -> None:
        """Take the peers of a plan; a peer whose node and entries are the same objects is kept."""
        for name in [name for name in self._peers if name not in entries]:
            self._remove(self._peers.pop(name))
        # Removals first: another peer may have such an address now.
        new = [n for n, leads in entries.items() if not self._keep(n, nodes[n], leads)]
        spread = len(entries) / self._budget.rate
        self._round = max(self._interval, spread)
        for name in new:
            self._add(nodes[name], entries[name])
            # All nodes learn of a new peer at the same time, but must not probe it at once.
            self._queue.add_urgent(self._peers[name], now + self._random.uniform(0.0, spread))
        self.revision += 1

    def _keep(self, name: str, node: Node, entries: tuple[Entry, ...]) -> bool:
        """Whether a peer is known with the same targets; with others it is removed."""
        peer = self._peers.get(name)
        if peer is None:
            return False
        if peer.node is node and peer.entries is entries:
            return True
        if targets_of(node, entries) == peer.targets:
            peer.node, peer.entries = node, entries
            return True
        self._remove(self._peers.pop(name))
        return False

    def _add(self, node: Node, entries: tuple[Entry, ...]) -> None:
        peer = self._peers[node.name] = Peer(node, entries, self._clock())
        self.counts[State.PENDING] += 1
        for target in peer.targets:
            self._owners[target.path].setdefault(target.address, peer)

    def _remove(self, peer: Peer) -> None:
        peer.gone, peer.inspection = True, None
        self.counts[peer.state] -= 1
        self.terminated += peer.was_established
        self._degraded.pop(peer.name, None)
        for target in peer.targets:
            if self._owners[target.path].get(target.address) is peer:
                del self._owners[target.path][target.address]

    # What is sent.

    def wait(self, now: float) -> float | None:
        """Seconds until there is something to do; None: until something is received."""
        due, oldest = self._queue.next_due(), next(iter(self._in_flight.values()), None)
        waits = [oldest.sent_at + TIMEOUT - now] if oldest else []
        if self._ready:
            waits.append(self._budget.wait(now, self._batch))
        elif due is not None:
            waits.append(max(due - now, self._budget.wait(now, self._batch)))
        return max(0.0, min(waits)) if waits else None

    def next_probes(self, now: float, nonce: Callable[[], int]) -> list[InFlight]:
        """The probes to send now."""
        self._expire(now)
        probes: list[InFlight] = []
        for _ in range(_POPS):
            if not self._budget.has(now) or not self._fill(now):
                break
            peer, probe = self._ready.popleft()
            if not peer.gone:
                self._budget.take()
                received = peer.received_since(now - RECENT)
                packet = Packet(False, probe.size, nonce(), received)
                sent = self._in_flight[packet.nonce] = InFlight(peer, probe, packet, now)
                probes.append(sent)
        return probes

    def _fill(self, now: float) -> bool:
        """Have a probe ready; False where no peer is due, or too many have no target."""
        for _ in range(_POPS):
            peer = None if self._ready else self._queue.pop(now)
            if peer is None:
                break
            probes = self._probes_of(peer, now)
            peer.awaited, peer.outcomes = len(probes), None
            self._ready += [(peer, probe) for probe in probes]
        return bool(self._ready)

    def _probes_of(self, peer: Peer, now: float) -> tuple[Probe, ...]:
        if peer.inspection is not None:
            return peer.inspection.probes()
        if peer.state is State.ESTABLISHED:
            # One large packet by one path at a time is enough while all is well.
            for target in (peer.next_main() for _ in peer.targets.mains):
                if self._has_path(target, peer):
                    return (large_probe(target, self.local.mtu),)
        targets = self._targets(peer)
        if not targets.mains:
            peer.detail = _NO_TARGET
            self._queue.add_urgent(peer, now + self._round)
            return ()
        inspection = peer.inspect(targets, self.local.mtu, now)
        if peer.state is State.PENDING:
            self._set(peer, State.CONNECTING)
        return inspection.probes()

    def _targets(self, peer: Peer) -> Targets:
        """Its targets that this node has an address for, and that no other peer has."""
        mains, below = (
            tuple(t for t in targets if self._has_path(t, peer))
            for targets in (peer.targets.mains, peer.targets.below)
        )
        return Targets(mains, below, peer.targets.tunnelled)

    def _has_path(self, target: Target, peer: Peer) -> bool:
        owners = self._owners[target.path]
        return target.path in self.local.own and owners.setdefault(target.address, peer) is peer

    # What is received.

    def knows(self, target: Target) -> bool:
        """Whether a peer has that address."""
        return target.address in self._owners[target.path]

    def receive_probe(self, origin: Target, packet: Packet, now: float) -> Packet | None:
        """The answer to a probe; None where it is of no peer.

        Anybody may have sent it in the peer's name, so it changes no state: it only brings an
        inspection forward.
        """
        peer = self._owners[origin.path].get(origin.address)
        if peer is None:
            return None
        peer.note_received(origin.path, now)
        self._inspect_early(peer, origin, now)
        return Packet(True, packet.size, packet.nonce, peer.received_since(now - RECENT))

    def _inspect_early(self, peer: Peer, origin: Target, now: float) -> None:
        """A silent peer is back. A small packet says nothing about the size that arrives."""
        if peer.state is State.ESTABLISHED or peer.reason is Reason.MTU or peer.inspection:
            return
        if now - peer.ended >= _EARLY and origin in peer.targets.mains:
            self._add_urgent(peer, now)

    def receive_answer(self, origin: Target, packet: Packet, received: float, now: float) -> bool:
        """Whether an answer, which the kernel received at that time, belongs to a probe."""
        sent = self._in_flight.get(packet.nonce)
        if sent is None or sent.target != origin or sent.probe.size != packet.size:
            return False
        del self._in_flight[packet.nonce]
        rtt = received - sent.sent_at - packet.delay / 1e6
        self._take(sent, Answered(max(0.0, rtt), packet.received), now)
        return True

    def reject(self, target: Target, nonce: int, rejection: Rejection, now: float) -> None:
        """A kernel reported that a probe cannot arrive."""
        sent = self._in_flight.get(nonce)
        if sent is not None and sent.target == target:
            del self._in_flight[nonce]
            self._take(sent, rejection, now)

    def note_overload(self, path: Path, now: float) -> None:
        """More datagrams came by that path until now than were read: some were lost."""
        self._overloaded_at[path] = now

    def _expire(self, now: float) -> None:
        # Probes are in order of time, for all have the same timeout.
        while self._in_flight:
            nonce, sent = next(iter(self._in_flight.items()))
            if now - sent.sent_at < TIMEOUT:
                return
            del self._in_flight[nonce]
            path, peer = sent.target.path, sent.peer
            # An overload may have taken the answer.
            peer.is_inconclusive |= self._overloaded_at[path] >= sent.sent_at
            self._take(sent, None, now)

    def _take(self, sent: InFlight, outcome: Outcome, now: float) -> None:
        peer, inspection = sent.peer, sent.peer.inspection
        if peer.gone:
            return
        peer.note_outcome(outcome)
        if inspection is None:
            self._take_single(sent, outcome, now)
            return
        peer.outcomes = {**(peer.outcomes or {}), sent.probe: outcome}
        peer.awaited -= 1
        if peer.awaited:
            return
        if peer.is_inconclusive:  # the peer keeps its state, and is inspected later
            peer.abandon_inspection()
            self._add_urgent(peer, now + self._interval * self._jitter())
            return
        inspection.advance(peer.outcomes)
        if inspection.stage == "done":
            self._conclude(peer, inspection, now)
        else:
            self._add_urgent(peer, now)

    def _take_single(self, sent: InFlight, outcome: Outcome, now: float) -> None:
        """The outcome of the one probe of an established peer."""
        peer = sent.peer
        if isinstance(outcome, Answered):
            peer.rtt, peer.path_mtu, peer.ended = outcome.rtt, sent.probe.size, now
            self._queue.add_regular(peer, now + self._round)
        else:
            peer.is_inconclusive = False  # the inspection is conclusive
            peer.inspect(self._targets(peer), self.local.mtu, sent.sent_at)
            self._add_urgent(peer, now)

    def _add_urgent(self, peer: Peer, due: float) -> None:
        is_pending = peer.inspection or peer.state in (State.CONNECTING, State.RETRYING)
        (self._queue.add_first if is_pending else self._queue.add_urgent)(peer, due)

    def _jitter(self) -> float:
        return self._random.uniform(1 - _JITTER, 1 + _JITTER)

    # What that means.

    def _conclude(self, peer: Peer, found: Inspection, now: float) -> None:
        peer.inspection, peer.ended = None, now
        received = peer.received_since(peer.suspect_since)
        verdict = judge(found, self.local, received, self.blocked)
        self.revision += (verdict.reason, verdict.detail) != (peer.reason, peer.detail)
        self._set(peer, peer.conclude(verdict, found, self.local.mtu))
        if peer.state is State.ESTABLISHED:
            self._queue.add_regular(peer, now + self._round)
        else:
            intervals = min(_FAST * 2 ** min(peer.misses - 1, 10), _SLOWEST)
            self._add_urgent(peer, now + self._interval * intervals * self._jitter())

    def _set(self, peer: Peer, state: State) -> None:
        before = peer.state
        if state is before:
            return
        self.terminated += state is State.FAILED and before is State.RETRYING
        self.revision += 1
        self.counts[before] -= 1
        self.counts[state] += 1
        peer.state, peer.since = state, self._clock()
        if state is State.ESTABLISHED:
            self._degraded.pop(peer.name, None)
        else:
            self._degraded[peer.name] = peer

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[PeerHealth]:
        return (peer.health() for peer in self._peers.values())

    def degraded(self) -> Iterator[PeerHealth]:
        """The peers that are probed and not established."""
        return (peer.health() for peer in self._degraded.values())
