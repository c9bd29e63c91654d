"""What routing has done since the daemon started, and its state after the last iteration.

Written by the routing thread alone and read by that of the metrics, without a lock: each number is
one object that is replaced as a whole.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from daemon.model import Histogram

if TYPE_CHECKING:
    from daemon.model import Desired, Snapshot, SourceActivity
    from daemon.status import NodeStatus
    from kernel.limits import Level

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of an iteration, in seconds."""
KINDS: Final = ("fdb", "file", "link", "neighbour", "nftables", "route", "sysctl", "other")
"""Kinds of objects that others may change: the first word of their names."""
_OPEN_MAX = 100_000
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Seen:
    """Routing after an iteration."""

    status: NodeStatus
    snapshot: Snapshot | None
    desired: Desired | None
    activity: SourceActivity | None


class Counts:
    """drift_detected, drift_repaired: external changes by kind; repaired when as desired again.

    last_iteration: when it ended, in seconds of the monotonic clock. errors: failures. restarts: of
    the loop after an unexpected error. endpoint_fault: why metrics are not served, empty where they
    are. levels: how full tables of the kernel are.
    """

    def __init__(self) -> None:
        self.drift_detected = dict.fromkeys(KINDS, 0)
        self.drift_repaired = dict.fromkeys(KINDS, 0)
        self.errors = self.restarts = 0
        self.last_iteration = time.monotonic()
        self.seen: Seen | None = None
        self.endpoint_fault = ""
        self.levels: tuple[Level, ...] = ()
        self._open: dict[Hashable, str] = {}
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0
        self._changes = self._counted = 0

    def note_drift(self, key: Hashable, name: str) -> None:
        """An object is not as desired through others; counted once until it is repaired."""
        if key not in self._open and len(self._open) < _OPEN_MAX:
            kind = self._open[key] = kind_of(name)
            self.drift_detected[kind] += 1

    def note_repair(self, key: Hashable, name: str) -> None:
        """The object was repaired."""
        self.note_drift(key, name)
        self.drift_repaired[self._open.pop(key, kind_of(name))] += 1
        self._changes += 1

    def note_resolved(self, key: Hashable) -> None:
        """The object is as desired without a repair: others restored it, or the plan changed."""
        kind = self._open.pop(key, None)
        if kind is not None:
            self.drift_repaired[kind] += 1

    def note_changes(self) -> None:
        """Something was changed in the kernel, whatever the reason."""
        self._changes += 1

    def note_iteration(self, began: float, seen: Seen) -> None:
        """The loop ended an iteration; only those that changed something are timed.

        began: when it woke up, in seconds of the monotonic clock.
        """
        self.last_iteration, self.seen = time.monotonic(), seen
        if self._changes != self._counted:
            self._counted = self._changes
            seconds = self.last_iteration - began
            self._buckets[bisect_left(BOUNDS, seconds)] += 1
            self._seconds += seconds

    def note_restart(self, status: NodeStatus) -> None:
        """The loop ended in an error, and will restart."""
        self.restarts += 1
        for key in [*self._open]:
            self.note_resolved(key)
        self.seen = Seen(status, None, None, None)

    def note_endpoint(self, fault: str) -> None:
        """Take why metrics are not served; empty where they are."""
        self.endpoint_fault = fault

    @property
    def iterations(self) -> Histogram:
        """The durations of the iterations that changed something."""
        return Histogram(tuple(self._buckets), self._seconds)


class Drift(Generic[K]):
    """What others changed of one part of the node, each noted in the counts until it is over."""

    def __init__(self, counts: Counts) -> None:
        self._counts, self._keys = counts, set[K]()

    def note(self, key: K, name: str) -> None:
        """An object is not as desired through others."""
        self._keys.add(key)
        self._counts.note_drift(key, name)

    def settle(self, differs: Callable[[K], bool]) -> None:
        """Resolve what does not differ any more: repaired, restored by others, or not desired."""
        for key in [key for key in self._keys if not differs(key)]:
            self._keys.remove(key)
            self._counts.note_resolved(key)


def kind_of(name: str) -> str:
    """The kind of an object by its name, as the journal has it: "route 10.244.7.0/24"."""
    kind = name.partition(" ")[0]
    return kind if kind in KINDS else "other"
