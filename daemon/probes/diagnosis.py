"""What a look at a peer says: the reason, and words for somebody who was woken up by it; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.probes.inspection import Inspection, Outcome, Refusal
from daemon.probes.protocol import Path
from daemon.probes.states import Reason
from daemon.probes.targets import Target


@dataclass(frozen=True, slots=True)
class Place:
    """This node, as verdicts need it.

    own: its address for each path that it can probe; mtu: of pods' links, in bytes; overhead: what
    encapsulation adds to that. port: of the probes; vxlan_port: of the overlay.
    """

    own: Mapping[Path, str]
    mtu: int
    overhead: int
    port: int
    vxlan_port: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """reason: NONE where all is well. detail: what is wrong and what to do."""

    reason: Reason
    detail: str = ""


def judge(seen: Inspection, place: Place, heard: int) -> Verdict:
    """The verdict of a look. heard: bits of the paths that probes of the peer came by meanwhile."""
    if seen.is_well:
        return Verdict(Reason.NONE)
    if seen.narrow:
        return Verdict(Reason.MTU, _tell_mtu(seen, seen.narrow, place))
    silent = next(t for t in seen.targets.mains if seen.answer(t) is None)
    refusal = seen.outcome(silent)
    below = next((t for t in seen.targets.below if seen.answer(t)), None)
    if isinstance(refusal, Refusal) and refusal.kind == "port":
        return Verdict(Reason.DAEMON_GONE, _tell_gone(silent, place))
    if closed := _closed_below(seen):
        return Verdict(Reason.DAEMON_GONE, _tell_gone_unseen(silent, closed, place))
    ways = _one_way(seen, silent, heard)
    if ways:
        return Verdict(Reason.ONE_WAY, _tell_one_way(ways, seen, silent, place))
    if below or _others_answer(seen, silent):
        return Verdict(Reason.OVERLAY_BLOCKED, _tell_blocked(seen, silent, below, place))
    return Verdict(Reason.UNDERLAY_DOWN, _tell_down(seen, silent, place))


def _closed_below(seen: Inspection) -> Target | None:
    """One of its own addresses at which its kernel says that nobody listens."""
    for target in seen.targets.below:
        found = seen.outcome(target)
        if isinstance(found, Refusal) and found.kind == "port":
            return target
    return None


def _others_answer(seen: Inspection, silent: Target) -> bool:
    return any(seen.answer(t) for t in seen.targets.mains if t != silent)


def _one_way(seen: Inspection, silent: Target, heard: int) -> str:
    """ "there" or "here": where alone packets arrive; empty where that cannot be told."""
    bit = silent.path.bit
    there, here = bool(seen.heard & bit), bool(heard & bit)
    if there == here:
        return ""
    return "there" if there else "here"


def _tell_mtu(seen: Inspection, narrow: Target, place: Place) -> str:
    if not seen.is_settled:  # whoever sets an MTU does so on all nodes: not by one look
        return (
            f"small packets arrive at {narrow.address}, of {place.mtu} bytes do not: which size "
            "does is being found"
        )
    told = f"packets of {seen.largest} bytes arrive at {narrow.address}, of {place.mtu} do not"
    hint = f"`mtu: {seen.largest}` in podwired.yaml on all nodes"
    if seen.targets.tunnelled:
        most = place.mtu + place.overhead
        return f"{told}: let the network between pass packets of {most} bytes, or set {hint}"
    return f"{told}: let the network between pass them, or set {hint}"


def _tell_gone(silent: Target, place: Place) -> str:
    pods = "; its pods can be reached all the same" if silent.path.is_pod else ""
    return (
        f"its node says that nobody listens at {silent.address}, UDP port {place.port}: start "
        f"podwired there, with `health` on and the same port{pods}"
    )


def _tell_gone_unseen(silent: Target, closed: Target, place: Place) -> str:
    return (
        f"its node says that nobody listens at {closed.address}, UDP port {place.port}, and over "
        f"the pod network ({silent.address}) nothing comes back at all: start podwired there"
    )


def _tell_one_way(ways: str, seen: Inspection, silent: Target, place: Place) -> str:
    own, where = place.own.get(silent.path), _where(silent)
    if ways == "there":
        told = f"packets from here arrive {where}, but none comes back"
    else:
        told = f"its packets arrive here, at {own}, but none from here arrives {where}"
    why = _explain(seen.outcome(silent))
    return f"{told}{why}: let {_traffic(seen, silent, place)} pass in that direction, too"


def _where(target: Target) -> str:
    return f"{'in its pod network' if target.path.is_pod else 'there'} ({target.address})"


def _traffic(seen: Inspection, silent: Target, place: Place) -> str:
    if seen.targets.tunnelled:
        return f"UDP port {place.vxlan_port}"
    return "packets with pods' addresses" if silent.path.is_pod else f"UDP port {place.port}"


def _tell_blocked(seen: Inspection, silent: Target, below: Target | None, place: Place) -> str:
    answers = below or next(t for t in seen.targets.mains if seen.answer(t))
    told = f"its node answers at {answers.address}, but not in its pod network ({silent.address})"
    why = _explain(seen.outcome(silent))
    between = _between(seen, place)
    if seen.targets.tunnelled:
        todo = f"let UDP port {place.vxlan_port} pass{between}, both ways"
    else:
        todo = (
            f"let packets with pods' addresses pass{between} (a cloud may check sources and "
            "destinations), and look whether the node there has the same back end"
        )
    return f"{told}{why}: {todo}"


def _between(seen: Inspection, place: Place) -> str:
    for target in seen.targets.below:
        own = place.own.get(target.path)
        if own is not None:
            return f" between {own} and {target.address}"
    return ""


def _tell_down(seen: Inspection, silent: Target, place: Place) -> str:
    targets = seen.targets.below or seen.targets.mains
    addresses = " and ".join(str(target.address) for target in targets)
    outcomes = (seen.outcome(target) for target in seen.targets)
    found = next((o for o in outcomes if isinstance(o, Refusal)), None)
    ports = f"UDP port {place.port}"
    if seen.targets.tunnelled:
        ports = f"UDP ports {place.vxlan_port} and {place.port}"
    return (
        f"nothing answers at {addresses}{_explain(found)}: is the node up and on the network, and "
        f"may {ports} pass?"
    )


def _explain(outcome: Outcome) -> str:
    if not isinstance(outcome, Refusal):
        return ""
    return f" ({outcome.by} says: {outcome.text})" if outcome.by else f" ({outcome.text})"
