"""What the routing half does and finds, told once each: journal, log, and how often it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence

from daemon.journal import Action, Journal, Record
from daemon.log import Log
from daemon.routing.backoff import STUBBORN, Backoff
from daemon.routing.counters import Counts

_AGAIN = 60.0

Damage = tuple[Hashable, str, str]
"""What was put right: its key, its name, who did it."""


class Teller:
    """error: the last thing that went wrong, empty where nothing did since it was cleared.

    counts: how often each kind of it was.
    """

    def __init__(
        self,
        journal: Journal,
        log: Log,
        clock: Callable[[], float] = time.monotonic,
        counts: Counts | None = None,
    ) -> None:
        self.error = ""
        self.log, self.counts = log, counts or Counts()
        self._clock = clock
        self._journal = journal
        self._backoff = Backoff()
        self._failures: dict[str, float] = {}

    def wait_for(self, key: Hashable) -> float:
        """Seconds until an object that others changed may be put right; 0 where it may now."""
        return self._backoff.wait_for(key, self._clock())

    def fail(self, text: str) -> None:
        """Something could not be done; the log has it once a minute, however often it is tried."""
        self.error = self.error or text
        self.counts.errors += 1
        now = self._clock()
        if now - self._failures.get(text, -_AGAIN) >= _AGAIN:
            self._failures[text] = now
            self.log.error(text)

    def write(
        self, action: Action, name: str, cause: str, before: str = "", after: str = ""
    ) -> None:
        """One change of one object."""
        self.record([Record(time.time(), action, name, cause, before, after)])
        told = f" ({cause})" if cause else ""
        self.log.info(f"{action} {name}{told}", before=before, after=after)

    def record(self, records: Iterable[Record]) -> None:
        """Changes, for the journal alone."""
        self.counts.change()
        self._journal.write(records)
        if self._journal.fault:
            self.fail(f"the journal cannot be written: {self._journal.fault}")

    def put_right(self, key: Hashable, action: Action, name: str, cause: str, *texts: str) -> None:
        """One object that others changed is as it should be again; texts: before, after."""
        if self.count([(key, name, cause)]):
            self.write(action, name, cause, *texts)

    def count(self, damages: Iterable[Damage]) -> set[Hashable]:
        """Count repairs of what others changed; the keys of those that are to be told.

        Of a quarrel the number alone is told, once a minute.
        """
        now, told, due = self._clock(), set[Hashable](), list[tuple[int, str, str]]()
        for key, name, cause in damages:
            self.counts.heal(key, name)
            if self._backoff.note(key, now) < STUBBORN:
                told.add(key)
            elif times := self._backoff.remind(key, now):
                due.append((times, name, cause))
        self._tell_quarrels(due)
        return told

    def _tell_quarrels(self, due: Sequence[tuple[int, str, str]]) -> None:
        if not due:
            return
        times, name, cause = due[0]
        more = f" (and {len(due) - 1} more)" if len(due) > 1 else ""
        text = f"{cause}, {times} times now: podwire goes on putting it right"
        self.log.warning(f"{name}{more}: {text}")
        self.record([Record(time.time(), "found", f"{name}{more}", text)])

    def rest(self, began: float) -> None:
        """Let further repairs of the same objects wait after a batch that began then."""
        self._backoff.note_effort(began, self._clock())

    def forget(self) -> None:
        """Drop what has calmed down."""
        now = self._clock()
        self._backoff.forget(now)
        for text in [t for t, told in self._failures.items() if now - told >= _AGAIN]:
            del self._failures[text]
