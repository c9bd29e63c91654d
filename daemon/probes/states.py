"""What is said about the way to another node."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """pending: not tried yet; connecting: tried, nothing came back yet; retrying: it answered
    before, and does not now; failed: given up for now, and tried again ever more seldom."""

    PENDING = "pending"
    CONNECTING = "connecting"
    ESTABLISHED = "established"
    RETRYING = "retrying"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a node is not reached as it should be."""

    NONE = ""
    OVERLAY_BLOCKED = "overlay-blocked"
    """Its node answers, over the pod network it does not."""
    UNDERLAY_DOWN = "underlay-down"
    """Nothing of it answers."""
    DAEMON_GONE = "daemon-gone"
    """Its kernel answers that nobody listens."""
    MTU = "mtu"
    """Small packets arrive, those of pods' MTU do not."""
    ONE_WAY = "one-way"
    """Packets arrive in one direction alone."""


@dataclass(frozen=True, slots=True)
class PeerHealth:
    """The way to one node. detail: what is wrong and what to do, for a person.

    since: when the state began, in seconds since 1970. rtt: of the last answer, in seconds.
    path_mtu: the largest IP packet in bytes that is known to arrive there; 0: none is.
    """

    name: str
    state: State
    reason: Reason
    detail: str
    since: float
    rtt: float | None
    path_mtu: int


def no_counts() -> dict[State, int]:
    """No peer in any state."""
    return dict.fromkeys(State, 0)
