"""What is said of refused prefixes: each, until they are too many."""

from __future__ import annotations

import time
from collections.abc import Sequence

from daemon.desired import Refusal
from daemon.journal import Record
from daemon.teller import Teller

_LINES = 8
"""So many have a line of log each; of more, the number is told."""
_RECORDS = 64
"""So many have a record each."""


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
