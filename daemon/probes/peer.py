"""A peer: its state, and how the verdict of an inspection changes it; pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from daemon.model import Node
from daemon.probes.diagnosis import Inspection, Outcome, Probe, Verdict
from daemon.probes.protocol import Path
from daemon.probes.report import PeerHealth, Reason, State
from daemon.probes.schedule import Target, Targets, targets_of
from kernel.model import Entry

MISSES = 3
"""Inspections in a row that find a fault until the peer has failed."""
RECENT = 5.0
"""Seconds for which a received probe counts as recent."""
_RECENT_END = 1 << 64
_NEVER = float("-inf")
_BITS = tuple(path.bit for path in Path)


@dataclass(slots=True, eq=False)
class Peer:
    """A peer; there are thousands of them.

    misses: inspections in a row that found a fault. suspect_since: start of the first of them.
    turn: the main path that was probed last. inspection: the running one; outcomes: of its stage's
    probes, of which `awaited` are in flight. ended: when the last inspection ended. ticket, gone:
    of the queue. is_inconclusive: an overload of this node may have taken the answer to a probe of
    this stage.
    """

    node: Node
    entries: tuple[Entry, ...]
    since: float
    name: str = field(init=False)
    targets: Targets = field(init=False)
    state: State = State.PENDING
    reason: Reason = Reason.NONE
    detail: str = ""
    rtt: float | None = None
    path_mtu: int = 0
    misses: int = 0
    turn: int = 0
    suspect_since: float = 0.0
    inspection: Inspection | None = None
    outcomes: dict[Probe, Outcome] | None = None
    awaited: int = 0
    ended: float = _NEVER
    ticket: int = 0
    gone: bool = False
    is_inconclusive: bool = False
    _recent: int = 1
    _received_at: list[float] | None = None

    def __post_init__(self) -> None:
        self.name, self.targets = self.node.name, targets_of(self.node, self.entries)

    @property
    def was_established(self) -> bool:
        """Whether the connection is established, or was until it is retried."""
        return self.state in (State.ESTABLISHED, State.RETRYING)

    def inspect(self, targets: Targets, mtu: int, now: float) -> Inspection:
        """Start an inspection. targets: those of the peer's that this node can probe."""
        if not self.misses:
            self.suspect_since = now
        is_first = not self.misses and self.state is not State.ESTABLISHED
        known = self.path_mtu if self.reason is Reason.MTU else 0
        check = targets.mains if is_first else ()
        self.inspection = Inspection(targets, mtu, check=check, known=known)
        return self.inspection

    def abandon_inspection(self) -> None:
        """End the running inspection without a verdict."""
        self.inspection, self.is_inconclusive = None, False

    def next_main(self) -> Target:
        """The main target to probe next."""
        mains = self.targets.mains
        self.turn = (self.turn + 1) % len(mains)
        return mains[self.turn]

    def note_received(self, path: Path, now: float) -> None:
        """A probe of the peer's came by that path."""
        if self._received_at is None:
            self._received_at = [_NEVER] * len(Path)
        self._received_at[path] = now

    def note_outcome(self, outcome: Outcome) -> None:
        """A probe has its outcome: an answer, a rejection, or none in time."""
        # A bit for each probe, set where it was lost, behind one that ends them.
        recent = self._recent << 1 | (outcome is None)
        self._recent = recent if recent <= _RECENT_END else recent & (_RECENT_END - 1) | _RECENT_END

    def received_since(self, moment: float) -> int:
        """The bits of the paths by which probes of the peer's came since then."""
        bits = 0
        for bit, when in zip(_BITS, self._received_at or (), strict=False):
            if when >= moment:
                bits |= bit
        return bits

    def conclude(self, verdict: Verdict, found: Inspection, mtu: int) -> State:
        """Take the verdict of an inspection; the state that follows."""
        self.reason, self.detail = verdict.reason, verdict.detail
        self.rtt = found.rtt if found.rtt is not None else self.rtt
        if verdict.reason is Reason.NONE:
            self.misses, self.path_mtu = 0, mtu
            return State.ESTABLISHED
        self.misses += 1
        self.path_mtu = found.largest
        if self.misses >= MISSES or self.state is State.FAILED:
            return State.FAILED
        return State.RETRYING if self.was_established else State.CONNECTING

    def health(self) -> PeerHealth:
        """The connection, as status and metrics show it."""
        return PeerHealth(
            self.name,
            self.state,
            self.reason,
            self.detail,
            self.since,
            self.rtt,
            self.path_mtu,
            self._recent.bit_length() - 1,
            self._recent.bit_count() - 1,
        )
