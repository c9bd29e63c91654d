"""The connections to peers as status and metrics show them: plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from heapq import nsmallest
from typing import Any

TROUBLES_MAX = 50
"""Peers listed in a report."""
_NAMED = 3
"""Peers with a line of their own."""


class State(StrEnum):
    """The state of the connection to a peer.

    pending: not probed yet; connecting: probed, without success so far; retrying: it was
    established, the last probes failed; failed: given up, probed less and less often.
    """

    PENDING = "pending"
    CONNECTING = "connecting"
    ESTABLISHED = "established"
    RETRYING = "retrying"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a connection is not established."""

    NONE = ""
    OVERLAY_BLOCKED = "overlay-blocked"
    """The node answers, but not over the pod network."""
    UNDERLAY_DOWN = "underlay-down"
    """The node does not answer at all."""
    DAEMON_GONE = "daemon-gone"
    """The node's kernel reports that no process listens."""
    MTU = "mtu"
    """Small packets arrive, those of the pods' MTU do not."""
    ONE_WAY = "one-way"
    """Packets arrive in one direction only."""


@dataclass(frozen=True, slots=True)
class PeerHealth:
    """The connection to a peer. detail: what is wrong and what to do, for a person.

    since: start of the state, in seconds since 1970. rtt: of the last answer, in seconds.
    path_mtu: the largest IP packet in bytes that is known to arrive; 0: none is. probes, lost: of
    the last ones to it (64 at most) how many there were, and how many had no answer in time.
    """

    name: str
    state: State
    reason: Reason
    detail: str
    since: float
    rtt: float | None
    path_mtu: int
    probes: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """A peer whose connection is degraded. since: start of the state, in seconds since 1970."""

    node: str
    state: str
    reason: str
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The number of peers in each state, and the degraded ones: failed first, TROUBLES_MAX at most.

    fault: why peers cannot be probed reliably, empty where they can. dropped: datagrams that were
    invalid or beyond the limits, since the daemon's start.
    """

    pending: int = 0
    connecting: int = 0
    established: int = 0
    retrying: int = 0
    failed: int = 0
    troubles: tuple[Trouble, ...] = ()
    fault: str = ""
    dropped: int = 0

    @property
    def unreached(self) -> int:
        """Peers whose last probes failed, judged or given up."""
        return self.failed + sum(t.state != State.FAILED for t in self.troubles)

    @property
    def lines(self) -> tuple[str, ...]:
        """What an operator must look at."""
        lines = [f"{_headline(t)}: {t.detail}" for t in self.troubles[:_NAMED]]
        more = self.unreached - len(lines)
        lines += [f"{more} more nodes are not reached"] if more > 0 else []
        return (self.fault, *lines) if self.fault else tuple(lines)

    def __str__(self) -> str:
        counts = ((getattr(self, state), str(state)) for state in reversed(State))
        dropped = ((self.dropped, "datagrams dropped"),)
        return ", ".join(f"{count} {name}" for count, name in (*counts, *dropped) if count)


def _headline(trouble: Trouble) -> str:
    if trouble.state == State.FAILED:
        return f"{trouble.node} is not reached ({trouble.reason})"
    return f"{trouble.node} does not answer as it should ({trouble.reason}, {trouble.state})"


def no_counts() -> dict[State, int]:
    """No peer in any state."""
    return dict.fromkeys(State, 0)


def make_report(
    counts: Mapping[State, int], degraded: Iterable[PeerHealth], fault: str, dropped: int
) -> HealthReport:
    """The report of all peers."""
    judged = (health for health in degraded if health.reason)
    worst = nsmallest(TROUBLES_MAX, judged, lambda h: (h.state is not State.FAILED, h.name))
    troubles = tuple(
        Trouble(h.name, str(h.state), str(h.reason), h.detail, round(h.since, 1)) for h in worst
    )
    numbers = {str(state): count for state, count in counts.items()}
    return HealthReport(**numbers, troubles=troubles, fault=fault, dropped=dropped)


def parse_report(raw: Mapping[str, Any]) -> HealthReport:
    """A report in a status file. Raises KeyError, TypeError."""
    troubles = tuple(Trouble(**item) for item in raw["troubles"])
    return HealthReport(**{**raw, "troubles": troubles})
