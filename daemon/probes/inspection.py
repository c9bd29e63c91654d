"""One look at a peer, in stages of probes that go out together; pure.

check  a packet of pods' MTU on its main paths: if they answer, all is well
look   small ones on all paths: which of them lead there at all
large  pods' MTU again, where all small ones were answered
sizes  the largest that arrives, where it was not
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from daemon.probes.protocol import Path, smallest
from daemon.probes.targets import Target, Targets

Stage = Literal["check", "look", "large", "sizes", "over"]

STEP = 8
"""The largest size that arrives is found up to so many bytes."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a probe cannot arrive, as a kernel said. by: who said so, empty for this node's own.

    kind: nobody listens there; a firewall forbids it; there is no way; it is too big (mtu: what is
    not).
    """

    kind: Literal["port", "forbidden", "unreachable", "size"]
    text: str
    by: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer came. heard: the bits of the paths on which the peer had heard from here."""

    rtt: float
    heard: int


Outcome = Answer | Refusal | None
"""What became of a probe; None: nothing came back in time."""


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A probe that is to be sent, which equals no other one. size: of its IP packet, in bytes."""

    target: Target
    size: int


def large(target: Target, mtu: int) -> Ask:
    """A probe of pods' MTU, or as small as there are."""
    return Ask(target, max(mtu, smallest(target.path.version)))


class Inspection:
    """One look. mtu: what must arrive, in bytes; known: what did when it did not lately, or 0.

    is_well: all that was tried arrived. narrow: the main target that large packets do not reach,
    where small ones do; largest: what does arrive there, in bytes. is_settled: an earlier look
    found the same.
    """

    __slots__ = (
        "_before", "_checked", "_found", "_high", "_known", "_mtu",
        "is_well", "largest", "narrow", "stage", "targets",
    )  # fmt: skip

    def __init__(self, targets: Targets, mtu: int, *, check: Sequence[Target], known: int) -> None:
        """check: the main targets that are enough if they answer; none: all paths at once."""
        self.targets, self._mtu, self._known, self._before = targets, mtu, known, known
        self._checked = tuple(check)
        self.stage: Stage = "check" if check else "look"
        self.is_well = False
        self.narrow: Target | None = None
        self.largest, self._high = 0, mtu
        self._found: dict[Path, Outcome] = {}

    def asks(self) -> tuple[Ask, ...]:
        """The probes of this stage."""
        if self.stage == "look":
            return tuple(Ask(t, smallest(t.path.version)) for t in self.targets)
        if self.stage == "sizes" and self.narrow:
            return (Ask(self.narrow, self._next_size()),)
        targets = {"check": self._checked, "large": self.targets.mains}.get(self.stage, ())
        return tuple(large(target, self._mtu) for target in targets)

    def advance(self, outcomes: Mapping[Ask, Outcome]) -> None:
        """Go to the next stage with what came of this one's probes."""
        if self.stage == "sizes":
            self._note_sizes(outcomes)
            return
        found = {ask.target.path: outcome for ask, outcome in outcomes.items()}
        mains = self._checked if self.stage == "check" else self.targets.mains
        silent = [t for t in mains if not isinstance(found.get(t.path), Answer)]
        if self.stage == "large" and silent:
            self._begin_sizes(silent[0], found[silent[0].path])
            return
        self._found = {**self._found, **found}
        self.is_well = not silent and self.stage != "look"
        if self.stage == "check" and silent:
            self.stage = "look"
        else:
            self.stage = "large" if self.stage == "look" and not silent else "over"

    def _begin_sizes(self, target: Target, outcome: Outcome) -> None:
        self.narrow, self.largest = target, smallest(target.path.version)
        self._take_hint(outcome)
        self.stage = "sizes" if self._is_open() else "over"

    def _take_hint(self, outcome: Outcome) -> None:
        if isinstance(outcome, Refusal) and outcome.kind == "size" and outcome.mtu:
            self._known = outcome.mtu

    def _is_open(self) -> bool:
        return self._high - self.largest > STEP

    def _next_size(self) -> int:
        # What was right before, or what a router said, is most likely right: it and the next one.
        if self.largest < self._known < self._high:
            return self._known
        if self._known == self.largest:
            return self.largest + STEP
        return (self.largest + self._high) // 2

    def _note_sizes(self, outcomes: Mapping[Ask, Outcome]) -> None:
        for ask, outcome in outcomes.items():
            if isinstance(outcome, Answer):
                self.largest = ask.size
            else:
                self._high = ask.size
                self._take_hint(outcome)
        if not self._is_open():
            self.stage = "over"

    @property
    def is_settled(self) -> bool:
        """Whether the largest size that arrives is no other than it was the last time."""
        return self.largest == self._before

    def outcome(self, target: Target) -> Outcome:
        """What became of the last probe there; None also where there was none."""
        return self._found.get(target.path)

    def answer(self, target: Target) -> Answer | None:
        """The last answer from there."""
        found = self._found.get(target.path)
        return found if isinstance(found, Answer) else None

    @property
    def rtt(self) -> float | None:
        """The shortest time that an answer took on a main path, in seconds."""
        answers = filter(None, map(self.answer, self.targets.mains))
        return min((answer.rtt for answer in answers), default=None)

    @property
    def heard(self) -> int:
        """The bits of the paths on which the peer says that it hears from here."""
        bits = 0
        for answer in filter(None, map(self.answer, self.targets)):
            bits |= answer.heard
        return bits
