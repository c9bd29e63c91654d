"""What routing does and finds: reported to journal, log and counters, each once.

The one account of what is wrong now is `Faults`; the status is made from it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal, get_args

from daemon.journal import Action, Journal, Record
from daemon.log import Log
from daemon.model import Refusal
from daemon.outages import Outages
from daemon.routing.backoff import FLAPPING, RepairPauses
from daemon.routing.counters import Counts
from daemon.status import OtherPart

_AGAIN = 60.0
"""Seconds after which the same failure is logged again."""
_NAMED = 32
"""Prefixes that are reported one by one; of more than these, the number is."""
_KEPT = "; kept, because it was in use before"
_STATUS = "`podwirectl status -o json`"
OVERLAP_AGAIN = 60.0
"""Seconds after which an overlap that comes and goes is reported again."""

NodePart = Literal["plan", "settings", "device", "rules", "bridge", "policies"]
"""A fault of one of these keeps pods from being attached. One of routes does not: a single peer may
be its cause."""
Part = Literal[NodePart, OtherPart]
_NODE: tuple[NodePart, ...] = get_args(NodePart)
_HARMLESS = {"limit", "metrics", "pods", "ranges", "tables", "unchecked", "unwired"}
Repair = tuple[Hashable, str, str]
"""What was repaired: its key, its name, and what others did."""


class Faults:
    """What is wrong now, by part of the daemon, and the last error.

    last_error: empty where none happened; last_error_time and last_error_over in seconds since
    1970, the latter 0 while it lasts.
    """

    def __init__(self) -> None:
        self._texts: dict[Part, str] = {}
        self.last_error, self.last_error_time, self.last_error_over = "", 0.0, 0.0

    def __getitem__(self, part: Part) -> str:
        return self._texts.get(part, "")

    def set(self, part: Part, text: str) -> bool:
        """Replace what is wrong with a part, empty where nothing is; whether it is a new fault."""
        before, self._texts[part] = self[part], text
        return bool(text) and text != before

    @property
    def node(self) -> str:
        """Why this node is not ready for pods; empty while it is."""
        return next(filter(None, map(self.__getitem__, _NODE)), "")

    @property
    def others(self) -> dict[str, str]:
        """What is wrong with parts that pods can do without for a while."""
        return {part: text for part, text in self._texts.items() if text and part not in _NODE}

    @property
    def are_over(self) -> bool:
        """Whether nothing is wrong that keeps this node from being as desired."""
        return not self.node and self.others.keys() <= _HARMLESS

    def note_error(self, text: str) -> None:
        """Keep an error as the last one."""
        self.last_error, self.last_error_time, self.last_error_over = text, time.time(), 0.0

    def note_end(self) -> None:
        """All is well: the last error is over, if it was not before."""
        if self.last_error:
            self.last_error_over = self.last_error_over or time.time()


class Reporter:
    """error: the first failure since it was cleared, empty where there was none.

    faults: what is wrong now. counts: how often each kind of change and failure was.
    """

    def __init__(
        self,
        journal: Journal,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        counts: Counts | None = None,
    ) -> None:
        self.error, self.faults = "", Faults()
        self.log, self.counts = log, counts or Counts()
        self._clock = clock
        self.journal = journal
        self._pauses = RepairPauses()
        self._failures: dict[str, float] = {}

    def pause_before(self, key: Hashable) -> float:
        """Seconds until an object that others changed may be repaired; 0 where it may now."""
        return self._pauses.wait(key, self._clock())

    def report_failure(self, text: str) -> None:
        """What could not be done; logged once a minute, however often it is tried."""
        self.error = self.error or text
        self.counts.errors += 1
        now = self._clock()
        if now - self._failures.get(text, -_AGAIN) >= _AGAIN:
            self._failures[text] = now
            self.log.error(text)

    def report_fault(self, part: Part, text: str) -> None:
        """What is wrong with a part, empty where nothing is; logged where that is new."""
        if self.faults.set(part, text):
            self.faults.note_error(text)
            self.log.error(text)

    def report_change(
        self, action: Action, name: str, cause: str, before: str = "", after: str = ""
    ) -> None:
        """One change of one object, to log and journal."""
        why = f" ({cause})" if cause else ""
        self.log.info(f"{action} {name}{why}", before=before, after=after)
        self.record([Record(time.time(), action, name, cause, before, after)])

    def record(self, records: Iterable[Record]) -> None:
        """Changes, to the journal alone."""
        self.counts.note_changes()
        self.journal.write(records)
        if self.journal.fault:
            self.report_failure(f"the journal cannot be written: {self.journal.fault}")

    def report_repair(self, key: Hashable, name: str, cause: str, *states: str) -> None:
        """The repair of one object that others changed; states: before, after."""
        if self.count_repairs([(key, name, cause)]):
            self.report_change("restored", name, cause, *states)

    def count_repairs(self, repairs: Iterable[Repair]) -> set[Hashable]:
        """Count repairs of what others changed; the keys of those to be reported one by one.

        Of a flapping object the number alone is reported, once a minute.
        """
        now, each, due = self._clock(), set[Hashable](), list[tuple[int, str, str]]()
        for key, name, cause in repairs:
            self.counts.note_repair(key, name)
            if self._pauses.count(key, now) < FLAPPING:
                each.add(key)
            elif times := self._pauses.due_report(key, now):
                due.append((times, name, cause))
        self._report_flapping(due)
        return each

    def _report_flapping(self, due: Sequence[tuple[int, str, str]]) -> None:
        if not due:
            return
        times, name, cause = due[0]
        more = f" (and {len(due) - 1} more)" if len(due) > 1 else ""
        text = f"{cause}, {times} times now: podwire goes on repairing it"
        self.log.warning(f"{name}{more}: {text}")
        self.record([Record(time.time(), "flapping", f"{name}{more}", text)])

    def note_batch(self, began: float) -> None:
        """Let further repairs of the same objects wait after a batch that began then."""
        self._pauses.note_batch(began, self._clock())

    def forget_calm(self) -> None:
        """Forget objects and failures that have been calm for long enough."""
        now = self._clock()
        self._pauses.forget_calm(now)
        for text in [t for t, logged in self._failures.items() if now - logged >= _AGAIN]:
            del self._failures[text]


class Refusals:
    """Reports prefixes that were not refused, or not tolerated, by the plan before."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter, self._log = reporter, reporter.log
        self._outages = Outages(reporter.journal, "node", reporter.log, began="refused")
        self._tolerated: dict[Refusal, float] = {}

    def report(self, refused: Sequence[Refusal], tolerated: Sequence[Refusal]) -> None:
        """Take all prefixes that a plan refuses, and those that it tolerates."""
        self._outages.update({f"{r.node} {r.prefix}": r.why for r in refused})
        # A route that comes and goes all the time must not fill the journal.
        now = time.monotonic()
        known = self._tolerated
        left = {t: min(until, now + OVERLAP_AGAIN) for t, until in known.items() if until > now}
        self._report_found([t for t in tolerated if t not in left])
        self._tolerated = left | dict.fromkeys(tolerated, math.inf)

    def _report_found(self, fresh: Sequence[Refusal]) -> None:
        """To journal and log, one by one unless they are many."""
        texts = [(f"node {r.node} {r.prefix}", f"{r.why}{_KEPT}") for r in fresh[:_NAMED]]
        if len(fresh) > _NAMED:
            texts.append((f"{len(fresh) - _NAMED} more prefixes", f"see {_STATUS}{_KEPT}"))
        for name, why in texts:
            self._log.warning(f"found {name}: {why}")
        if texts:
            self._reporter.record(Record(time.time(), "found", name, why) for name, why in texts)
