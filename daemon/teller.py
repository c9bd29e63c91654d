"""What the routing half does and finds, told once each: journal, log, and how often it was."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable

from daemon.backoff import STUBBORN, Backoff
from daemon.journal import Action, Journal, Record
from daemon.log import Log

_AGAIN = 60.0


class Teller:
    """error: the last thing that went wrong, empty where nothing did since it was cleared."""

    def __init__(self, journal: Journal, log: Log) -> None:
        self.error = ""
        self.log = log
        self._journal = journal
        self._backoff = Backoff()
        self._failures: dict[str, float] = {}

    def wait_for(self, key: Hashable) -> float:
        """Seconds until an object that others changed may be put right; 0 where it may now."""
        return self._backoff.wait_for(key, time.monotonic())

    def fail(self, text: str) -> None:
        """Something could not be done; the log has it once a minute, however often it is tried."""
        self.error = self.error or text
        now = time.monotonic()
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
        self._journal.write(records)

    def count(self, key: Hashable, name: str, cause: str) -> None:
        """Count a repair of what others changed; a quarrel is told once."""
        if self._backoff.note(key, time.monotonic()) == STUBBORN:
            text = f"{cause}, {STUBBORN} times now: podwire goes on putting it right"
            self.log.warning(f"{name}: {text}")
            self.record([Record(time.time(), "found", name, text)])

    def rest(self, began: float) -> None:
        """Let further repairs of the same objects wait after a batch that began then."""
        self._backoff.note_effort(began, time.monotonic())

    def forget(self) -> None:
        """Drop what has calmed down."""
        now = time.monotonic()
        self._backoff.forget(now)
        for text in [t for t, told in self._failures.items() if now - told >= _AGAIN]:
            del self._failures[text]
