"""What fails for a while: its beginning and its end, in the journal and in the log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice

from cni_plugin.errors import RANGE_EXHAUSTED
from daemon.journal import Action, Journal, Record
from daemon.log import Log

_RECORDS = 32
"""Records at once; of more, the number is recorded."""
_QUIET = 30.0
"""Seconds without a failure of a kind after which a success ends it."""
_CHECK = 1.0
"""Seconds between looks at the counters of calls."""
_MEANINGS = {str(RANGE_EXHAUSTED): "a range of addresses is exhausted"}


class Outages:
    """Outages of objects of one kind. kind: the first word of their names in the journal."""

    def __init__(
        self, journal: Journal, kind: str, log: Log | None = None, began: Action = "failed"
    ) -> None:
        """log: None where others log it. began: the action of the record of a beginning."""
        self._journal, self._kind, self._log, self._began = journal, kind, log, began
        self._open: dict[str, tuple[float, str]] = {}

    def update(self, failing: Mapping[str, str]) -> None:
        """Take all that fail now, with the reason of each; the others are well, or gone."""
        # Seconds since boot, which no change of the clock moves.
        now, up = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        began = {name: why for name, why in failing.items() if name not in self._open}
        over = {name: self._open.pop(name) for name in self._open.keys() - failing.keys()}
        self._open |= {name: (up, why) for name, why in began.items()}
        ended = {name: f"after {up - at:.0f}s: {why}" for name, (at, why) in over.items()}
        self._write(self._began, began, now)
        self._write("ended", ended, now)

    def _write(self, action: Action, causes: Mapping[str, str], now: float) -> None:
        named = islice(sorted(causes.items()), _RECORDS)
        records = [Record(now, action, f"{self._kind} {name}", why) for name, why in named]
        if (more := len(causes) - _RECORDS) > 0:
            records.append(Record(now, action, f"{more} more of {self._kind}", "see the log"))
        if self._log is not None:
            emit = self._log.info if action == "ended" else self._log.warning
            for record in records:
                emit(f"{action} {record.object}: {record.cause}")
        self._journal.write(records)


class FailedCalls:
    """Failures of ADD: each error code is an outage until calls succeed again."""

    def __init__(self, journal: Journal) -> None:
        self._outages, self._checked_at = Outages(journal, "ADD"), 0.0
        self._seen: dict[str, int] = {}
        self._last: dict[str, tuple[float, int]] = {}

    def is_due(self, now: float) -> bool:
        """Whether the counters should be read now, in seconds of the monotonic clock."""
        return now >= self._checked_at + _CHECK

    def note(self, codes: Mapping[str, int], now: float) -> None:
        """Take the number of calls by code ("0" for success) since the daemon's start."""
        self._checked_at, done = now, codes["0"]
        for code, count in codes.items():
            if code != "0" and count > self._seen.get(code, 0):
                self._seen[code], self._last[code] = count, (now, done)
        for code, (at, done_then) in [*self._last.items()]:
            if done > done_then and now - at >= _QUIET:
                del self._last[code]
        self._outages.update({f"with error {code}": _explain(code) for code in self._last})


def _explain(code: str) -> str:
    return f"{_MEANINGS.get(code, 'pods cannot be attached')}: see podwired's log"
