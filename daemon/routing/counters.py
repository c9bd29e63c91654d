"""What the routing half has done since the daemon started, and how it saw the cluster last.

Written by the routing thread alone and read by that of the metrics, without a lock: each number is
one object that is replaced as a whole.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from daemon.cni_server.call_counters import Histogram

if TYPE_CHECKING:
    from daemon.model import Desired, News, Snapshot
    from daemon.status import NodeStatus

BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of a turn, in seconds."""
KINDS: Final = ("fdb", "file", "link", "neighbour", "nftables", "route", "sysctl", "other")
"""What others may change, by the first word of its name."""
_OPEN_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Seen:
    """The routing half at the end of a turn."""

    status: NodeStatus
    snapshot: Snapshot | None
    desired: Desired | None
    news: News | None


class Counts:
    """found, healed: what others changed, by kind; it is healed when it is as planned again.

    turned: when the loop turned last, in seconds of the monotonic clock. errors: what could not be
    done. restarts: beginnings of the loop after an error that nobody foresaw. endpoint_fault: why
    nobody can read all this, empty where somebody can.
    """

    def __init__(self) -> None:
        self.found = dict.fromkeys(KINDS, 0)
        self.healed = dict.fromkeys(KINDS, 0)
        self.errors = self.restarts = 0
        self.turned = time.monotonic()
        self.seen: Seen | None = None
        self.endpoint_fault = ""
        self._open: dict[Hashable, str] = {}
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0
        self._changes = self._told = 0

    def find(self, key: Hashable, name: str) -> None:
        """Something is not as planned through others; counted once until it is healed."""
        if key not in self._open and len(self._open) < _OPEN_MAX:
            kind = self._open[key] = kind_of(name)
            self.found[kind] += 1

    def heal(self, key: Hashable, name: str) -> None:
        """It is as planned again."""
        self.find(key, name)
        self.healed[self._open.pop(key, kind_of(name))] += 1
        self._changes += 1

    def lapse(self, key: Hashable) -> None:
        """It came right by itself, or the plan wants something else by now."""
        kind = self._open.pop(key, None)
        if kind is not None:
            self.healed[kind] += 1

    def change(self, objects: int = 1) -> None:
        """So many objects were changed, whoever had made that necessary."""
        self._changes += objects

    def turn(self, began: float, seen: Seen) -> None:
        """A turn of the loop is over; how long is told of those alone that changed something.

        began: when it woke, in seconds of the monotonic clock.
        """
        self.turned, self.seen = time.monotonic(), seen
        if self._changes != self._told:
            self._told = self._changes
            seconds = self.turned - began
            self._buckets[bisect_left(BOUNDS, seconds)] += 1
            self._seconds += seconds

    def begin_anew(self, status: NodeStatus) -> None:
        """The loop ended in an error, and will begin anew."""
        self.restarts += 1
        for key in [*self._open]:
            self.lapse(key)
        self.seen = Seen(status, None, None, None)

    def note_endpoint(self, fault: str) -> None:
        """Take why metrics are not served, or that they are."""
        self.endpoint_fault = fault

    @property
    def turns(self) -> Histogram:
        """How long the turns took that changed something."""
        return Histogram(tuple(self._buckets), self._seconds)


def kind_of(name: str) -> str:
    """The kind of an object by its name, as the journal has it: "route 10.244.7.0/24"."""
    kind = name.partition(" ")[0]
    return kind if kind in KINDS else "other"
