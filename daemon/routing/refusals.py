"""What is said of prefixes that are refused or in the way: each, until they are too many."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from daemon.journal import Record
from daemon.model import Refusal
from daemon.routing.reporter import Teller

_LINES = 8
"""So many have a line of log each; of more, the number is told."""
_RECORDS = 64
"""So many have a record each."""
TOLD_AGAIN = 60.0
"""Seconds after which what is in the way again is told again."""


class Refusals:
    """Tells what is refused anew, by comparison with what was refused before."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._known: frozenset[Refusal] = frozenset()

    def tell(self, refused: Sequence[Refusal]) -> None:
        """Take all that a plan refuses."""
        fresh = [r for r in refused if r not in self._known]
        over = len(self._known.difference(refused))
        self._known = frozenset(refused)
        for refusal in fresh[:_LINES]:
            self._teller.log.warning(f"refused {refusal}")
        if len(fresh) > _LINES:
            self._teller.log.warning(
                f"refused {len(fresh) - _LINES} more prefixes: see `podwired status`"
            )
        if over:
            self._teller.log.info(f"{over} prefixes are refused no more", left=len(refused))
        self._teller.record(_records(fresh))


def _records(fresh: Sequence[Refusal]) -> list[Record]:
    now = time.time()
    records = [Record(now, "refused", f"node {r.node} {r.prefix}", r.why) for r in fresh[:_RECORDS]]
    if len(fresh) > _RECORDS:
        cause = "each for a reason of its own: see `podwired status -o json`"
        records.append(Record(now, "refused", f"{len(fresh) - _RECORDS} more prefixes", cause))
    return records


class Tolerated:
    """Tells what is in the way of prefixes that are kept, for they were in use before."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self._known: dict[Refusal, float] = {}

    def tell(self, tolerated: Sequence[Refusal]) -> None:
        """Take all that a plan tolerates."""
        # A quarrel about one route must not fill the journal: it comes and goes all the time.
        now = time.monotonic()
        left = {t: min(until, now + TOLD_AGAIN) for t, until in self._known.items() if until > now}
        fresh = [t for t in tolerated if t not in left]
        for one in fresh[:_LINES]:
            name = f"node {one.node} {one.prefix}"
            cause = f"{one.why}; kept, for it was in use before"
            self._teller.record([Record(time.time(), "found", name, cause)])
            self._teller.log.warning(f"found {name}: {cause}")
        if len(fresh) > _LINES:
            text = f"{len(fresh) - _LINES} more prefixes overlap networks of this node"
            self._teller.log.warning(text)
        self._known = left | dict.fromkeys(tolerated, math.inf)
