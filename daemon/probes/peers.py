"""All peers: which probe goes when, what came back, and what that says; pure but for chance.

Cost does not grow with the number of peers: at most `budget` probes a second go to all of them
together. One that is well gets one probe an interval, or less often, so that each has its turn:
5,000 peers at 20 probes a second each 250 seconds.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from daemon.model import Node
from daemon.probes.budget import Budget, steady
from daemon.probes.diagnosis import Place, judge
from daemon.probes.inspection import Answer, Ask, Inspection, Outcome, Refusal, large
from daemon.probes.peer import HEARD_SECONDS, Peer
from daemon.probes.protocol import DEAF_SHIFT, Packet, Path
from daemon.probes.schedule import Queue
from daemon.probes.states import PeerHealth, Reason, State, no_counts
from daemon.probes.targets import Target, Targets, targets_of
from kernel.model import Entry

TIMEOUT = 1.0
"""Seconds after which an answer does not come any more."""
_ANSWERS, _ANSWERS_LEAST = 10.0, 80.0
"""So many times the budget may be answered a second, and so many at once at least."""
_ANSWERS_EACH = 25
"""So many answers a second one peer gets: who sends as if it were one takes no others' place."""
_FAST, _SLOWEST = 0.2, 6.0
"""Intervals until the second look at a peer in trouble, and at most between later ones."""
_NUDGE = 2.0
"""Seconds at least between looks that packets of the peer itself bring about."""
_JITTER = 0.2
_DEAF_SECONDS = 2.0
"""For so long after a moment in which a path was flooded peers are told."""
_NEVER = float("-inf")
_POPS = 64
"""So many turns at most are given at once: those that lead to no probe cost, too."""


@dataclass(slots=True)
class Probe:
    """A probe that is to be sent now. at: when it went, as whoever sends it may correct it."""

    peer: Peer
    ask: Ask
    packet: Packet
    at: float

    @property
    def target(self) -> Target:
        """Where it goes."""
        return self.ask.target


@dataclass(frozen=True, slots=True)
class Change:
    """A peer that failed, or one that answers again."""

    health: PeerHealth
    before: State


class Peers:
    """place: this node, which changes with its plan.

    counts: peers by state. terminated: connections that ended: the peer failed, left, or is
    another one now. changes: what happened since somebody took it from there. news: grows with
    everything that `counts` and `unwell` tell otherwise than before.
    """

    def __init__(
        self, interval: float, budget: float, random: Random, clock: Callable[[], float]
    ) -> None:
        """clock: seconds since 1970, for people; all other times are given."""
        self.place = Place({}, 0, 0, 0, 0)
        self.counts, self.terminated, self.news = no_counts(), 0, 0
        self.changes: list[Change] = []
        self._interval, self._random, self._clock = interval, random, clock
        self._round = interval
        self._budget = steady(budget)
        self._answers = Budget(_ANSWERS * budget, max(_ANSWERS_LEAST, _ANSWERS * budget))
        self._served, self._second = Counter[str](), 0
        self._deaf = dict.fromkeys(Path, _NEVER)
        self._peers: dict[str, Peer] = {}
        self._unwell: dict[str, Peer] = {}
        self._owners: dict[Path, dict[str, Peer]] = {path: {} for path in Path}
        self._queue = Queue()
        self._ready: deque[tuple[Peer, Ask]] = deque()
        self._sent: dict[int, Probe] = {}

    # What there should be.

    def aim(
        self, nodes: Mapping[str, Node], entries: Mapping[str, tuple[Entry, ...]], now: float
    ) -> None:
        """Take the peers of a plan; those whose objects are the same as before are passed over."""
        for name in [name for name in self._peers if name not in entries]:
            self._remove(self._peers.pop(name))
        # First all that goes: another peer may have its address now.
        fresh = [n for n, leads in entries.items() if not self._is_kept(n, nodes[n], leads)]
        spread = len(entries) / self._budget.rate
        self._round = max(self._interval, spread)
        for name in fresh:
            self._put(nodes[name], entries[name])
            # Others learnt of it at the same moment: it must not hear from all of them at once.
            self._queue.hurry(self._peers[name], now + self._random.uniform(0.0, spread))
        self.news += 1

    def _is_kept(self, name: str, node: Node, entries: tuple[Entry, ...]) -> bool:
        """Whether a peer is there, and probed where it was; one that is not is removed."""
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

    def _put(self, node: Node, entries: tuple[Entry, ...]) -> None:
        peer = self._peers[node.name] = Peer(node, entries, self._clock())
        self.counts[State.PENDING] += 1
        for target in peer.targets:
            self._owners[target.path].setdefault(target.address, peer)

    def _remove(self, peer: Peer) -> None:
        peer.gone, peer.look = True, None
        self.counts[peer.state] -= 1
        self.terminated += peer.was_established
        self._unwell.pop(peer.name, None)
        for target in peer.targets:
            if self._owners[target.path].get(target.address) is peer:
                del self._owners[target.path][target.address]

    # What goes out.

    def wait(self, now: float) -> float | None:
        """Seconds until there is something to do; None: when something comes."""
        due, oldest = self._queue.next_due(), next(iter(self._sent.values()), None)
        waits = [oldest.at + TIMEOUT - now] if oldest else []
        if self._ready:
            waits.append(self._budget.wait(now))
        elif due is not None:
            waits.append(max(due - now, self._budget.wait(now)))
        return max(0.0, min(waits)) if waits else None

    def take(self, now: float, nonce: Callable[[], int]) -> list[Probe]:
        """The probes that go out now."""
        self._expire(now)
        probes: list[Probe] = []
        for _ in range(_POPS):
            if not self._budget.has(now) or not self._fill(now):
                break
            peer, ask = self._ready.popleft()
            if not peer.gone:
                self._budget.spend(1)
                probes.append(self._probe(peer, ask, now, nonce()))
        return probes

    def _fill(self, now: float) -> bool:
        """Have a probe ready; False where it is nobody's turn, or too many turns led to none."""
        for _ in range(_POPS):
            peer = None if self._ready else self._queue.pop(now)
            if peer is None:
                break
            asks = self._asks(peer, now)
            peer.awaited, peer.outcomes = len(asks), None
            self._ready += [(peer, ask) for ask in asks]
        return bool(self._ready)

    def _asks(self, peer: Peer, now: float) -> tuple[Ask, ...]:
        if peer.look is not None:
            return peer.look.asks()
        if peer.state is State.ESTABLISHED:
            # One large packet by one path at a time is enough of what is well.
            for target in (peer.next_main() for _ in peer.targets.mains):
                if self._is_reachable(target, peer):
                    return (large(target, self.place.mtu),)
        targets = self._reachable(peer)
        if not targets.mains:
            self._leave_alone(peer, now)
            return ()
        look = peer.begin(targets, self.place.mtu, now)
        if peer.state is State.PENDING:
            self._set(peer, State.CONNECTING)
        return look.asks()

    def _probe(self, peer: Peer, ask: Ask, now: float, nonce: int) -> Probe:
        probe = Probe(peer, ask, Packet(False, self._tell(peer, now), ask.size, nonce), now)
        self._sent[nonce] = probe
        return probe

    def _reachable(self, peer: Peer) -> Targets:
        """Its targets that this node has an address for, and that nobody else has."""
        found = peer.targets
        if all(self._is_reachable(target, peer) for target in found):
            return found
        mains, below = (
            tuple(t for t in targets if self._is_reachable(t, peer))
            for targets in (found.mains, found.below)
        )
        return Targets(mains, below, found.tunnelled)

    def _is_reachable(self, target: Target, peer: Peer) -> bool:
        owners = self._owners[target.path]
        return target.path in self.place.own and owners.setdefault(target.address, peer) is peer

    def _leave_alone(self, peer: Peer, now: float) -> None:
        peer.detail = "nothing of it can be probed: its prefixes are refused, or of another family"
        self._queue.hurry(peer, now + self._round)

    # What comes in.

    def hear(self, target: Target, now: float, told: int = 0) -> int | None:
        """A probe came from there: the bits for its answer; None: it is not to be answered.

        told: the bits that it had.
        """
        peer = self._owners[target.path].get(target.address)
        if peer is None:
            return None
        peer.note_heard(target.path, now)
        peer.note_deaf(told, now)
        self._nudge(peer, target, now)
        if not self._serves(peer, now):
            return None
        return self._tell(peer, now)

    def _serves(self, peer: Peer, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._served = int(now), Counter()
        if self._served[peer.name] >= _ANSWERS_EACH or not self._answers.has(now):
            return False
        self._served[peer.name] += 1
        self._answers.spend(1)
        return True

    def _tell(self, peer: Peer, now: float) -> int:
        """The bits of a packet to it."""
        deaf = (path.bit for path, at in self._deaf.items() if now - at < _DEAF_SECONDS)
        return peer.heard_since(now - HEARD_SECONDS) | sum(deaf) << DEAF_SHIFT

    def note_deaf(self, path: Path, now: float) -> None:
        """What came by that path until now was more than could be read: some of it is lost."""
        self._deaf[path] = now

    def addresses(self) -> Mapping[Path, Sequence[str]]:
        """All addresses that peers' packets come from."""
        found: dict[Path, list[str]] = {path: [] for path in Path}
        for peer in self._peers.values():
            for path, address in peer.targets:
                found[path].append(address)
        return found

    def knows(self, target: Target) -> bool:
        """Whether a peer has that address."""
        return target.address in self._owners[target.path]

    def _nudge(self, peer: Peer, target: Target, now: float) -> None:
        """Look at once at a peer that was silent. Of sizes a small packet says nothing."""
        if peer.state is State.ESTABLISHED or peer.reason is Reason.MTU or peer.look:
            return
        if now - peer.ended >= _NUDGE and target in peer.targets.mains:
            self._queue.hurry(peer, now)

    def answered(self, target: Target, packet: Packet, received: float, now: float) -> bool:
        """An answer came from there, a while ago maybe; whether it was awaited."""
        sent = self._sent.get(packet.nonce)
        if sent is None or sent.ask.target != target or sent.ask.size != packet.size:
            return False
        del self._sent[packet.nonce]
        rtt = received - sent.at - packet.held / 1e6
        sent.peer.note_deaf(packet.heard, now)
        self._note(sent, Answer(max(0.0, rtt), packet.heard), now)
        return True

    def refused(self, target: Target, nonce: int | None, refusal: Refusal, now: float) -> None:
        """A kernel said that a probe cannot arrive. nonce: None where it did not say which."""
        numbers = list(self._sent) if nonce is None else [nonce]
        for number in numbers:
            sent = self._sent.get(number)
            if sent is not None and sent.ask.target == target:
                del self._sent[number]
                self._note(sent, refusal, now)
                return

    def _expire(self, now: float) -> None:
        # In order of time, for all have the same patience.
        while self._sent:
            nonce, sent = next(iter(self._sent.items()))
            if now - sent.at < TIMEOUT:
                return
            del self._sent[nonce]
            path = sent.target.path
            sent.peer.is_void |= self._deaf[path] >= sent.at
            sent.peer.is_void |= sent.peer.was_deaf(path, sent.at - TIMEOUT)
            self._note(sent, None, now)

    def _note(self, sent: Probe, outcome: Outcome, now: float) -> None:
        peer, look = sent.peer, sent.peer.look
        if peer.gone:
            return
        if look is None:
            self._note_check(sent, outcome, now)
            return
        peer.outcomes = {**(peer.outcomes or {}), sent.ask: outcome}
        peer.awaited -= 1
        if peer.awaited:
            return
        if peer.is_void:
            self._leave_off(peer, now)
            return
        look.advance(peer.outcomes)
        if look.stage == "over":
            self._conclude(peer, look, now)
        else:
            self._queue.hurry(peer, now)

    def _note_check(self, sent: Probe, outcome: Outcome, now: float) -> None:
        """What came of the one probe of a peer that is well."""
        peer = sent.peer
        if isinstance(outcome, Answer):
            peer.rtt, peer.path_mtu, peer.ended = outcome.rtt, sent.ask.size, now
            self._queue.go_round(peer, now + self._round)
        else:
            peer.is_void = False  # the look will tell
            peer.begin(self._reachable(peer), self.place.mtu, sent.at)
            self._queue.hurry(peer, now)

    def _leave_off(self, peer: Peer, now: float) -> None:
        """A flood took what would have told: it is seen as it was before, and looked at later."""
        peer.leave_off()
        jitter = self._random.uniform(1 - _JITTER, 1 + _JITTER)
        self._queue.hurry(peer, now + self._interval * jitter)

    # What that says.

    def _conclude(self, peer: Peer, look: Inspection, now: float) -> None:
        peer.look, peer.ended = None, now
        verdict = judge(look, self.place, peer.heard_since(peer.suspect))
        self.news += (verdict.reason, verdict.detail) != (peer.reason, peer.detail)
        self._set(peer, peer.conclude(verdict, look, self.place.mtu))
        jitter = self._random.uniform(1 - _JITTER, 1 + _JITTER)
        if peer.state is State.ESTABLISHED:
            self._queue.go_round(peer, now + self._round)
        else:
            slower = min(_FAST * 2 ** min(peer.misses - 1, 10), _SLOWEST)
            self._queue.hurry(peer, now + self._interval * slower * jitter)

    def _set(self, peer: Peer, state: State) -> None:
        before = peer.state
        if state is before:
            return
        self.terminated += state is State.FAILED and before is State.RETRYING
        self.news += 1
        self.counts[before] -= 1
        self.counts[state] += 1
        peer.state, peer.since = state, self._clock()
        if state in (State.PENDING, State.ESTABLISHED):
            self._unwell.pop(peer.name, None)
        else:
            self._unwell[peer.name] = peer
        if State.FAILED in (state, before):
            self.changes.append(Change(peer.tell(), before))

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[PeerHealth]:
        return (peer.tell() for peer in self._peers.values())

    def unwell(self) -> Iterator[PeerHealth]:
        """Those that were tried and do not answer as they should."""
        return (peer.tell() for peer in self._unwell.values())
