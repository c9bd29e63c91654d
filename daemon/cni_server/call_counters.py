"""CNI calls counted across the daemon's processes, in memory that they share.

A table of 64-bit counters, one row for each process, made before the processes are forked. A row is
written by its own process alone, so no lock goes across processes; a reader adds up the rows and
may see one call half counted, never a counter that goes back (an aligned 64-bit store is one
store on every machine that podwire runs on).
"""

from __future__ import annotations

import json
import mmap
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cni_plugin import errors
from cni_plugin.handle import Reply
from daemon.model import Histogram

VERBS: Final = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "other")
CODES: Final = (0, *errors.CODES)
"""Codes that are counted one by one, 0 for success; other plugins may have any code."""
OTHER: Final = "other"
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets, in seconds: from less than the kernel's share to a runtime's
patience."""

_CELL = 8
_BUCKETS = len(BOUNDS) + 1
# Where a verb's cells are: calls in flight, calls by code, then one histogram for calls that were
# done and one for those that failed, each its buckets and the sum of nanoseconds.
_CODES_AT = 1
_HISTOGRAM = _BUCKETS + 1
_HISTOGRAMS_AT = _CODES_AT + len(CODES) + 1
_VERB_CELLS = _HISTOGRAMS_AT + 2 * _HISTOGRAM
_ROW_CELLS = -(-len(VERBS) * _VERB_CELLS // 8) * 8  # whole cache lines
_VERB_AT = {verb: n * _VERB_CELLS for n, verb in enumerate(VERBS)}
_OTHER_VERB = _VERB_AT[OTHER]
_CODE_AT = {code: _CODES_AT + n for n, code in enumerate(CODES)}
_OTHER_CODE = _CODES_AT + len(CODES)


@dataclass(frozen=True, slots=True)
class VerbCounts:
    """What was counted of one verb. codes: calls by code as text, "0" for success."""

    in_flight: int
    codes: Mapping[str, int]
    done: Histogram
    failed: Histogram


class CallCounters:
    """The table, shared with processes that are forked after it was made.

    rows: one for each process that there can be at a time. dead: processes that died.
    """

    def __init__(self, rows: int) -> None:
        """All zero."""
        memory = mmap.mmap(-1, rows * _ROW_CELLS * _CELL)  # MAP_SHARED, and no file
        self._cells = memoryview(memory).cast("Q")
        places = range(0, rows * _ROW_CELLS, _ROW_CELLS)
        self.rows = tuple(ProcessCounters(self._cells[n : n + _ROW_CELLS]) for n in places)
        self.dead = 0

    @property
    def fault(self) -> str:
        """Which processes serve CNI calls no more; empty while all do."""
        if not self.dead:
            return ""
        died = f"{self.dead} of {len(self.rows)} processes for CNI calls died"
        return f"{died}, podwired's log says how: restart podwired"

    def drop(self, row: int) -> None:
        """The row's process has died: its calls are in flight no more, what it counted stays."""
        self.dead += 1
        for at in _VERB_AT.values():
            self.rows[row].cells[at] = 0

    def read(self) -> Mapping[str, VerbCounts]:
        """All processes' counts together, by verb."""
        sums = [sum(column) for column in zip(*(r.cells.tolist() for r in self.rows), strict=True)]
        return {verb: _counts(sums[at : at + _VERB_CELLS]) for verb, at in _VERB_AT.items()}


class ProcessCounters:
    """A process's own row, for its threads."""

    def __init__(self, cells: memoryview[int]) -> None:
        self.cells = cells
        self._mutex = threading.Lock()

    def begin(self, verb: str) -> float:
        """Count a call as in flight; when that was, in seconds of the monotonic clock."""
        with self._mutex:
            self.cells[_VERB_AT.get(verb, _OTHER_VERB)] += 1
        return time.monotonic()

    def end(self, verb: str, seconds: float, code: int | None) -> None:
        """A call that `begin` counted is over. code: see `code_of`; None where it was not made."""
        cells, at = self.cells, _VERB_AT.get(verb, _OTHER_VERB)
        histogram = at + _HISTOGRAMS_AT + (_HISTOGRAM if code else 0)
        with self._mutex:
            cells[at] -= 1
            if code is not None:
                cells[at + _CODE_AT.get(code, _OTHER_CODE)] += 1
                cells[histogram + bisect_left(BOUNDS, seconds)] += 1
                cells[histogram + _BUCKETS] += int(seconds * 1e9)


def code_of(reply: Reply | None) -> int | None:
    """The CNI error code of a reply, 0 of one that is a success; None where there is no reply."""
    if reply is None:
        return None
    if reply.status == 0:
        return 0
    try:
        code = json.loads(reply.stdout)["code"]
    except (ValueError, KeyError, TypeError):
        return errors.INTERNAL
    return code if isinstance(code, int) and code else errors.INTERNAL


def _counts(cells: list[int]) -> VerbCounts:
    names = (*map(str, CODES), OTHER)
    codes = dict(zip(names, cells[_CODES_AT:_HISTOGRAMS_AT], strict=True))
    done, failed = cells[_HISTOGRAMS_AT:][:_HISTOGRAM], cells[_HISTOGRAMS_AT:][_HISTOGRAM:]
    return VerbCounts(cells[0], codes, _histogram(done), _histogram(failed))


def _histogram(cells: list[int]) -> Histogram:
    return Histogram(tuple(cells[:_BUCKETS]), cells[_BUCKETS] / 1e9)
