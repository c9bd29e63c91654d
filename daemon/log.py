"""The daemon's log: lines with key=value fields; the level can change at run time."""

from __future__ import annotations

import json
import mmap
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

_STDERR = 2
_SHOWN = 80
LEVELS = ("error", "warning", "info", "debug")
_JOURNAL_PRIORITY = {"error": 3, "warning": 4, "info": 6, "debug": 7}  # sd-daemon(3)


class Log:
    """Lines to stderr, for the journal or a terminal. Configurations and environments stay out.

    The level is shared with processes that are forked later.
    """

    def __init__(self, level: str = "info", *, journal: bool = False) -> None:
        self._shared = mmap.mmap(-1, 1)
        self.level = level
        self._journal = journal
        self._mutex = threading.Lock()

    @property
    def level(self) -> str:
        """The lowest level that is written, one of LEVELS."""
        return LEVELS[self._shared[0]]

    @level.setter
    def level(self, name: str) -> None:
        self._shared[0] = LEVELS.index(name)

    def error(self, text: str, **fields: object) -> None:
        """A failure that an operator must deal with."""
        self._write("error", text, fields)

    def warning(self, text: str, **fields: object) -> None:
        """An anomaly that podwire dealt with."""
        self._write("warning", text, fields)

    def info(self, text: str, **fields: object) -> None:
        """What podwire did."""
        self._write("info", text, fields)

    def debug(self, text: str, **fields: object) -> None:
        """How it did that; of several lines each is written by itself."""
        for line in text.splitlines():
            self._write("debug", line, fields)

    def switch(self) -> None:
        """Go to debug, or back to info."""
        self.level = "info" if self.level == "debug" else "debug"
        self._write("info", f"log level is {self.level}", {})

    def _write(self, level: str, text: str, fields: Mapping[str, object]) -> None:
        if LEVELS.index(level) > self._shared[0]:
            return
        head = f"<{_JOURNAL_PRIORITY[level]}>" if self._journal else f"{_now()} {level:7} "
        tail = "".join(f" {key}={_plain(value)}" for key, value in fields.items() if value != "")
        # A process chooses its own name, and a peer its words: neither writes a line of the log.
        safe = printable(text)
        line = f"{head}{safe}{tail}\n".encode(errors="backslashreplace")
        # The reader of stderr may be gone: calls matter more than their log lines.
        with self._mutex, suppress(OSError):
            os.write(_STDERR, line)


def printable(text: str) -> str:
    """The text on one line, without characters that a terminal interprets."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shorten(value: object) -> str:
    """A value of unknown origin, made safe and short for a message."""
    text = ascii(value.decode(errors="replace") if isinstance(value, bytes) else value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _plain(value: object) -> str:
    text = str(value)
    if text.isprintable() and " " not in text and '"' not in text and len(text) <= 300:
        return text
    return json.dumps(text[:300])


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
