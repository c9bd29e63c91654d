"""What is wrong with the connection to a peer: an inspection by probes, and its verdict; pure.

An inspection has stages of probes that are sent together:

check   a packet of the pods' MTU on the main paths; where all are answered, all is well
paths   small packets on all paths: which of them work
mtu     the pods' MTU on the main paths again, where all small packets were answered
search  the largest size that arrives, where the pods' MTU does not
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from daemon.probes.protocol import Path, smallest
from daemon.probes.report import Reason
from daemon.probes.schedule import Target, Targets

Stage = Literal["check", "paths", "mtu", "search", "done"]

_OF_PATHS = frozenset({Reason.OVERLAY_BLOCKED, Reason.UNDERLAY_DOWN, Reason.ONE_WAY})
"""Reasons that a fault of this node may have, too."""
STEP = 8
"""Precision of the search for the largest size, in bytes."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A kernel reported that a probe cannot arrive. by: its address, empty for this node's own.

    kind: no process listens at the port; a firewall forbids it; there is no route; the packet is
    too large (mtu: what fits, 0 where unknown).
    """

    kind: Literal["port", "forbidden", "unreachable", "size"]
    text: str
    by: str = ""
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """A probe was answered. received: bits of the paths by which the peer received probes."""

    rtt: float
    received: int


Outcome = Answered | Rejection | None
"""The outcome of a probe; None: no answer in time."""


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """A probe to send, equal to itself alone. size: of its IP packet, in bytes."""

    target: Target
    size: int


def large_probe(target: Target, mtu: int) -> Probe:
    """A probe of the pods' MTU, or of the smallest size where that is larger."""
    return Probe(target, max(mtu, smallest(target.path.version)))


class Inspection:
    """mtu: the size that must arrive, in bytes; known: the size that an earlier inspection found.

    is_ok: all probes were answered. narrow: the main target that small probes reach and large ones
    do not; largest: the size that arrives there, in bytes.
    """

    __slots__ = (
        "_checked", "_earlier", "_hint", "_mtu", "_outcomes", "_too_large",
        "is_ok", "largest", "narrow", "stage", "targets",
    )  # fmt: skip

    def __init__(self, targets: Targets, mtu: int, *, check: Sequence[Target], known: int) -> None:
        """check: the targets of the first stage; where there are none it is left out."""
        self.targets, self._mtu = targets, mtu
        self._hint = self._earlier = known
        self._checked = tuple(check)
        self.stage: Stage = "check" if check else "paths"
        self.is_ok = False
        self.narrow: Target | None = None
        self.largest, self._too_large = 0, mtu
        self._outcomes: dict[Path, Outcome] = {}

    def probes(self) -> tuple[Probe, ...]:
        """The probes of this stage."""
        if self.stage == "paths":
            return tuple(Probe(t, smallest(t.path.version)) for t in self.targets)
        if self.stage == "search" and self.narrow:
            return (Probe(self.narrow, self._next_size()),)
        targets = {"check": self._checked, "mtu": self.targets.mains}.get(self.stage, ())
        return tuple(large_probe(target, self._mtu) for target in targets)

    def advance(self, outcomes: Mapping[Probe, Outcome]) -> None:
        """Go to the next stage with the outcomes of all probes of this one."""
        if self.stage == "search":
            self._narrow_down(outcomes)
            return
        found = {probe.target.path: outcome for probe, outcome in outcomes.items()}
        mains = self._checked if self.stage == "check" else self.targets.mains
        silent = [t for t in mains if not isinstance(found.get(t.path), Answered)]
        if self.stage == "mtu" and silent:
            self._start_search(silent[0], found[silent[0].path])
            return
        self._outcomes = {**self._outcomes, **found}
        self.is_ok = not silent and self.stage != "paths"
        if self.stage == "check" and silent:
            self.stage = "paths"
        else:
            self.stage = "mtu" if self.stage == "paths" and not silent else "done"

    def _start_search(self, target: Target, outcome: Outcome) -> None:
        self.narrow, self.largest = target, smallest(target.path.version)
        self._take_hint(outcome)
        self.stage = "search" if self._is_open() else "done"

    def _take_hint(self, outcome: Outcome) -> None:
        if isinstance(outcome, Rejection) and outcome.kind == "size" and outcome.mtu:
            self._hint = outcome.mtu

    def _is_open(self) -> bool:
        return self._too_large - self.largest > STEP

    def _next_size(self) -> int:
        # The size found earlier, or reported by a router, is the most likely one: try it and the
        # next one above it.
        if self.largest < self._hint < self._too_large:
            return self._hint
        if self._hint == self.largest:
            return self.largest + STEP
        return (self.largest + self._too_large) // 2

    def _narrow_down(self, outcomes: Mapping[Probe, Outcome]) -> None:
        for probe, outcome in outcomes.items():
            if isinstance(outcome, Answered):
                self.largest = probe.size
            else:
                self._too_large = probe.size
                self._take_hint(outcome)
        if not self._is_open():
            self.stage = "done"

    @property
    def is_confirmed(self) -> bool:
        """Whether the largest size is the one that the earlier inspection found."""
        return self.largest == self._earlier

    def outcome(self, target: Target) -> Outcome:
        """The outcome of the last probe to a target; None also where there was none."""
        return self._outcomes.get(target.path)

    def answer(self, target: Target) -> Answered | None:
        """The last answer of a target."""
        found = self.outcome(target)
        return found if isinstance(found, Answered) else None

    @property
    def rtt(self) -> float | None:
        """The shortest round trip on a main path, in seconds."""
        answers = filter(None, map(self.answer, self.targets.mains))
        return min((answer.rtt for answer in answers), default=None)

    @property
    def received(self) -> int:
        """The bits of the paths by which the peer reports to receive probes of this node."""
        bits = 0
        for answer in filter(None, map(self.answer, self.targets)):
            bits |= answer.received
        return bits


@dataclass(frozen=True, slots=True)
class LocalNode:
    """This node, as verdicts need it.

    own: its address on each path that it can probe. mtu: of pods' links, in bytes; overhead: bytes
    that encapsulation adds. port: of the probes; vxlan_port: of the overlay.
    """

    own: Mapping[Path, str]
    mtu: int
    overhead: int
    port: int
    vxlan_port: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """reason: NONE where the connection is well. detail: what is wrong and what to do."""

    reason: Reason
    detail: str = ""


def judge(found: Inspection, local: LocalNode, received: int, blocked: str = "") -> Verdict:
    """The verdict of an inspection. received: bits of the paths that probes of the peer came by.

    blocked: why packets get nowhere on this node; it comes before what may be wrong elsewhere.
    """
    verdict = _judge(found, local, received)
    is_local = blocked and verdict.reason in _OF_PATHS
    return Verdict(verdict.reason, blocked) if is_local else verdict


def _judge(found: Inspection, local: LocalNode, received: int) -> Verdict:
    if found.is_ok:
        return Verdict(Reason.NONE)
    if found.narrow:
        return Verdict(Reason.MTU, _describe_mtu(found, found.narrow, local))
    mains, below = found.targets.mains, found.targets.below
    silent = next(t for t in mains if found.answer(t) is None)
    closed = next((t for t in (silent, *below) if _is_closed(found.outcome(t))), None)
    if closed:
        return Verdict(Reason.DAEMON_GONE, _describe_gone(closed, silent, local))
    if arrives := _one_way(found, silent, received):
        return Verdict(Reason.ONE_WAY, _describe_one_way(arrives, found, silent, local))
    answering = next((t for t in (*below, *mains) if found.answer(t)), None)
    if answering:
        return Verdict(Reason.OVERLAY_BLOCKED, _describe_blocked(answering, found, silent, local))
    return Verdict(Reason.UNDERLAY_DOWN, _describe_down(found, local))


def _is_closed(outcome: Outcome) -> bool:
    return isinstance(outcome, Rejection) and outcome.kind == "port"


def _one_way(found: Inspection, silent: Target, received: int) -> Literal["there", "here", ""]:
    """Where alone packets arrive; empty where they arrive at both ends or at none."""
    there, here = bool(found.received & silent.path.bit), bool(received & silent.path.bit)
    if there == here:
        return ""
    return "there" if there else "here"


def _describe_mtu(found: Inspection, narrow: Target, local: LocalNode) -> str:
    if not found.is_confirmed:  # an MTU is set on all nodes: not by a single measurement
        return (
            f"small packets arrive at {narrow.address}, of {local.mtu} bytes do not: the largest "
            "size is being measured"
        )
    limit = f"packets of {found.largest} bytes arrive at {narrow.address}, of {local.mtu} do not"
    setting = f"set `mtu: {found.largest}` in podwired.yaml on all nodes"
    size = f" of {local.mtu + local.overhead} bytes" if found.targets.tunnelled else " of that size"
    return f"{limit}: let the network between the nodes pass packets{size}, or {setting}"


def _describe_gone(closed: Target, silent: Target, local: LocalNode) -> str:
    note = ""
    if closed != silent:
        note = f"; nothing comes back over the pod network ({silent.address})"
    elif silent.path.is_pod:
        note = "; its pods can be reached"
    return (
        f"its kernel reports that no process listens at {closed.address}, UDP port {local.port}: "
        f"start podwired there, with `health` on and the same port{note}"
    )


def _describe_one_way(arrives: str, found: Inspection, silent: Target, local: LocalNode) -> str:
    where = f"{'in its pod network' if silent.path.is_pod else 'there'} ({silent.address})"
    if arrives == "there":
        what = f"packets from here arrive {where}, but none comes back"
    else:
        own = local.own.get(silent.path)
        what = f"its packets arrive here, at {own}, but none from here arrives {where}"
    if found.targets.tunnelled:
        traffic = f"UDP port {local.vxlan_port}"
    else:
        traffic = "packets with pods' addresses" if silent.path.is_pod else f"UDP port {local.port}"
    return f"{what}{_cause(found.outcome(silent))}: let {traffic} pass in that direction, too"


def _describe_blocked(
    answering: Target, found: Inspection, silent: Target, local: LocalNode
) -> str:
    what = f"its node answers at {answering.address}, but not in its pod network ({silent.address})"
    pairs = ((local.own.get(t.path), t.address) for t in found.targets.below)
    between = next((f" between {own} and {address}" for own, address in pairs if own), "")
    if found.targets.tunnelled:
        remedy = f"let UDP port {local.vxlan_port} pass{between}, both ways"
    else:
        remedy = (
            f"let packets with pods' addresses pass{between} (a cloud may check sources and "
            "destinations), and check that the node there has the same back end"
        )
    return f"{what}{_cause(found.outcome(silent))}: {remedy}"


def _describe_down(found: Inspection, local: LocalNode) -> str:
    targets = found.targets.below or found.targets.mains
    addresses = " and ".join(target.address for target in targets)
    outcomes = map(found.outcome, found.targets)
    cause = _cause(next((o for o in outcomes if isinstance(o, Rejection)), None))
    ports = f"UDP port {local.port}"
    if found.targets.tunnelled:
        ports = f"UDP ports {local.vxlan_port} and {local.port}"
    return (
        f"nothing answers at {addresses}{cause}: check that the node is up and on the network, and "
        f"that {ports} may pass"
    )


def _cause(outcome: Outcome) -> str:
    if not isinstance(outcome, Rejection):
        return ""
    return f" ({outcome.by} reports: {outcome.text})" if outcome.by else f" ({outcome.text})"
