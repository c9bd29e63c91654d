"""The last thing that went wrong, and whether it is over."""

from __future__ import annotations

import time

from daemon.log import Log


class LastError:
    """text: empty where nothing did. time, over: seconds since 1970; over is 0 while it lasts."""

    def __init__(self, log: Log) -> None:
        self.text, self.time, self.over = "", 0.0, 0.0
        self._log = log

    def note(self, text: str) -> None:
        """Keep what somebody else has told."""
        self.text, self.time, self.over = text, time.time(), 0.0

    def tell(self, text: str) -> None:
        """Keep it, and write it to the log."""
        self.note(text)
        self._log.error(text)

    def judge(self, error: str, *, over: bool) -> None:
        """After a turn: what went wrong in it, or that all is well again."""
        if error:
            self.note(error)
        elif self.text and over:
            self.over = self.over or time.time()
