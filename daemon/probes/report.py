"""What the status of a node says about its peers; plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

from daemon.probes.states import PeerHealth, State

TROUBLES_MAX = 50
"""So many peers are in a status by name."""
_NAMED = 3
"""So many of them are in its lines of troubles."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A peer that does not answer as it should. since: seconds since 1970, when it began."""

    node: str
    state: str
    reason: str
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class HealthReport:
    """Peers by state; those in trouble, failed ones first, as far as there is room.

    fault: why peers are not probed as they should be; empty where they are. flood: where, and by
    whom, this node is sent more than it reads.
    """

    pending: int = 0
    connecting: int = 0
    established: int = 0
    retrying: int = 0
    failed: int = 0
    troubles: tuple[Trouble, ...] = ()
    fault: str = ""
    flood: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """What somebody must look at."""
        failed = [t for t in self.troubles if t.state == State.FAILED]
        told = [f"{t.node} is not reached ({t.reason}): {t.detail}" for t in failed[:_NAMED]]
        more = self.failed - len(told)
        told += [f"{more} more nodes are not reached"] if more > 0 else []
        fault = [f"peers are not probed: {self.fault}"] if self.fault else []
        flood = [self.flood] if self.flood else []
        return (*fault, *flood, *told)

    def __str__(self) -> str:
        counts = ((getattr(self, state), str(state)) for state in reversed(State))
        return ", ".join(f"{count} {name}" for count, name in counts if count)


def make_report(
    counts: Mapping[State, int], unwell: Iterable[PeerHealth], fault: str, flood: str = ""
) -> HealthReport:
    """The report of all peers."""
    reasoned = (health for health in unwell if health.reason)
    worst = nsmallest(TROUBLES_MAX, reasoned, lambda h: (h.state is not State.FAILED, h.name))
    troubles = tuple(
        Trouble(h.name, str(h.state), str(h.reason), h.detail, round(h.since, 1)) for h in worst
    )
    numbers = {str(state): count for state, count in counts.items()}
    return HealthReport(**numbers, troubles=troubles, fault=fault, flood=flood)


def parse_report(raw: Mapping[str, Any]) -> HealthReport:
    """A report of a status file. Raises KeyError, TypeError."""
    troubles = tuple(Trouble(**item) for item in raw["troubles"])
    return HealthReport(**{**raw, "troubles": troubles})
