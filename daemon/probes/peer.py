"""One peer: its state, and how what is seen of it changes that; pure."""

from __future__ import annotations

from daemon.model import Node
from daemon.probes.diagnosis import Verdict
from daemon.probes.inspection import Ask, Inspection, Outcome
from daemon.probes.protocol import DEAF_SHIFT, Path
from daemon.probes.states import PeerHealth, Reason, State
from daemon.probes.targets import Target, Targets, targets_of
from kernel.model import Entry

MISSES = 3
"""Looks in a row that find something wrong until a peer counts as failed."""
HEARD_SECONDS = 5.0
"""For so long a packet counts as heard lately."""
_NEVER = float("-inf")
_BITS = tuple(path.bit for path in Path)


class Peer:
    """One node, as it is probed; thousands of them are kept.

    targets: where it is probed. misses: looks in a row that found something wrong. suspect: when
    the first of them began. turn: which of its main paths was checked last. look: the one under
    way, with the probes of its stage that are still awaited, and what came of the others. ended:
    when the last look was over. ticket: of its place in the queue; 0 while it has none. gone: it is
    in the plan no more. deaf, deaf_at: the bits of the paths on which it said that it is flooded,
    and when. is_void: what came of a probe of this stage cannot be told.
    """

    __slots__ = (
        "_heard", "awaited", "deaf", "deaf_at", "detail", "ended", "entries", "gone", "is_void",
        "look", "misses", "name", "node", "outcomes", "path_mtu", "reason", "rtt", "since", "state",
        "suspect", "targets", "ticket", "turn",
    )  # fmt: skip

    def __init__(self, node: Node, entries: tuple[Entry, ...], since: float) -> None:
        self.name, self.node, self.entries = node.name, node, entries
        self.targets = targets_of(node, entries)
        self.state, self.reason, self.detail, self.since = State.PENDING, Reason.NONE, "", since
        self.rtt: float | None = None
        self.path_mtu = self.misses = self.turn = self.awaited = self.ticket = 0
        self.suspect, self.ended, self.gone = 0.0, _NEVER, False
        self.deaf, self.deaf_at, self.is_void = 0, _NEVER, False
        self.look: Inspection | None = None
        self.outcomes: dict[Ask, Outcome] | None = None
        self._heard: list[float] | None = None

    @property
    def was_established(self) -> bool:
        """Whether it answered lately, or would have to."""
        return self.state in (State.ESTABLISHED, State.RETRYING)

    def begin(self, targets: Targets, mtu: int, now: float) -> Inspection:
        """Begin a look. targets: of those that it has, the ones that can be probed from here."""
        if not self.misses:
            self.suspect = now
        is_new = not self.misses and self.state is not State.ESTABLISHED
        known = self.path_mtu if self.reason is Reason.MTU else 0
        self.look = Inspection(targets, mtu, check=targets.mains if is_new else (), known=known)
        return self.look

    def next_main(self) -> Target:
        """The main target whose turn it is to be checked."""
        mains = self.targets.mains
        self.turn = (self.turn + 1) % len(mains)
        return mains[self.turn]

    def note_heard(self, path: Path, now: float) -> None:
        """A probe of its came by that path."""
        if self._heard is None:
            self._heard = [_NEVER] * len(Path)
        self._heard[path] = now

    def note_deaf(self, told: int, now: float) -> None:
        """What a packet of its said of paths (`Packet.heard`)."""
        if told >> DEAF_SHIFT:
            self.deaf, self.deaf_at = told >> DEAF_SHIFT, now

    def was_deaf(self, path: Path, moment: float) -> bool:
        """Whether it is known to have been flooded there since then."""
        return self.deaf_at >= moment and bool(self.deaf & path.bit)

    def leave_off(self) -> None:
        """End the look that is under way: what it saw says nothing."""
        self.look, self.is_void = None, False

    def heard_since(self, moment: float) -> int:
        """The bits of the paths by which its probes came since then."""
        bits = 0
        for bit, when in zip(_BITS, self._heard or (), strict=False):
            if when >= moment:
                bits |= bit
        return bits

    def conclude(self, verdict: Verdict, look: Inspection, mtu: int) -> State:
        """Take what a look says; the state that it is in now."""
        self.reason, self.detail = verdict.reason, verdict.detail
        self.rtt = look.rtt if look.rtt is not None else self.rtt
        if verdict.reason is Reason.NONE:
            self.misses, self.path_mtu = 0, mtu
            return State.ESTABLISHED
        self.misses += 1
        self.path_mtu = look.largest
        if self.misses >= MISSES or self.state is State.FAILED:
            return State.FAILED
        return State.RETRYING if self.was_established else State.CONNECTING

    def tell(self) -> PeerHealth:
        """What there is to say about it."""
        return PeerHealth(
            self.name, self.state, self.reason, self.detail, self.since, self.rtt, self.path_mtu
        )
