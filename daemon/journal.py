"""The journal: every change that podwire made or found, one JSON object a line.

Each batch is appended with one write(2) to a file opened O_APPEND: readers see whole batches, and a
killed daemon loses nothing that was written. Nothing is synced to disk: after a power loss the last
seconds may be missing or garbled; garbled lines are skipped.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Final, Literal, cast, get_args

from daemon.config import MIN_JOURNAL_BYTES

Action = Literal[
    "added", "removed", "changed", "restored", "refused", "found", "flapping", "failed", "ended",
]  # fmt: skip
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)

MIN_BYTES = MIN_JOURNAL_BYTES
"""The smallest bound: half of it holds the longest line."""
_TEXT_MAX = 500  # characters; in JSON at most twelve bytes each
_BEGINNING = 64 << 10  # bytes; more than any record has
_NAMES = ("action", "object", "cause", "before", "after")


@dataclass(frozen=True, slots=True)
class Record:
    """One change. time: seconds since 1970; before and after are empty where there was nothing.

    added, removed, changed: what podwire did by its plan. restored: an external change that podwire
    repaired. flapping: one that it repairs again and again. found: one that it left as it is.
    refused: what it does not do. failed: the beginning of an outage. ended: the end of one, or of a
    refusal.
    """

    time: float
    action: Action
    object: str
    cause: str = ""
    before: str = ""
    after: str = ""


@lru_cache(maxsize=4)
def render_time(seconds: float) -> str:
    """RFC 3339 in UTC, with microseconds."""
    whole, micros = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{micros:06}Z"


def as_json(record: Record) -> dict[str, str]:
    """The record as the file and `podwirectl history -o json` have it."""
    texts = {name: cast(str, getattr(record, name)) for name in _NAMES}
    return {"time": render_time(record.time), **texts}


def encode(record: Record) -> bytes:
    """One line of the file. Long texts are cut: the bound of the file holds whatever comes."""
    # Formatted by hand: a node that starts writes thousands of records at once.
    r = record
    texts = map(_quote, map(_cut, (r.action, r.object, r.cause, r.before, r.after)))
    return (_LINE % (render_time(r.time), *texts)).encode()


_quote = json.encoder.encode_basestring_ascii
_LINE = '{"time":"%s","action":%s,"object":%s,"cause":%s,"before":%s,"after":%s}\n'


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 3] + "..."


def decode(line: bytes) -> Record | None:
    """The record of a line; None for one that is torn or no record."""
    try:
        fields = json.loads(line)
        moment = datetime.fromisoformat(fields["time"])
        texts = [fields[name] for name in _NAMES]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if moment.tzinfo is None or not all(isinstance(text, str) for text in texts):
        return None
    # Whole microseconds, for a float of the seconds alone rounds them.
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND
    action, *rest = texts
    return Record(micros / 1_000_000, cast(Action, action), *rest)


_MICROSECOND = datetime.resolution


class Journal:
    """The writer. Together with the file before it (`.1`) it never exceeds max_bytes.

    fault: why the last write failed, empty where it did not. A journal that cannot be written stops
    no other work; its first line afterwards says how many records were lost.
    written, unwritten: how many records were written, by action, and how many were not.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Nothing is opened before the first write. A bound below MIN_BYTES counts as that."""
        self.path, self.fault, self._lost = path, "", 0
        self.written: dict[str, int] = dict.fromkeys(ACTIONS, 0)
        self.unwritten = 0
        self._half = max(max_bytes, MIN_BYTES) // 2
        self._mutex = threading.Lock()
        self._fd, self._size, self._torn = -1, 0, False

    def write(self, records: Iterable[Record]) -> None:
        """Append records; they are in the file, as a reader sees it, when this returns.

        Without any, a fault is over if the file can be written again.
        """
        given = list(records)
        if not given and not self._lost:
            return
        lines = [encode(record) for record in given]
        with self._mutex:
            left = [*self._loss_record(), *lines]
            try:
                while left:
                    left = left[self._append(left) :]
                self.fault, self._lost = "", 0
            except OSError as error:
                self.fault = f"{self.path}: {error.strerror or error}"
                self._lost += min(len(left), len(lines))
            self._count(given, min(len(left), len(lines)))

    def _count(self, given: Sequence[Record], lost: int) -> None:
        self.unwritten += lost
        for record in given[: len(given) - lost]:
            self.written[record.action] += 1

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        with self._mutex:
            self._close()

    def _loss_record(self) -> list[bytes]:
        if not self._lost:
            return []
        cause = f"about {self._lost} records could not be written: {self.fault}"
        return [encode(Record(time.time(), "found", "journal", cause))]

    def _append(self, lines: Sequence[bytes]) -> int:
        """Write as many lines as fit one file, in one write; how many."""
        self._open()
        if self._size and self._size + len(lines[0]) + 1 > self._half:
            self._rotate()
        room, count = self._half - self._size - 1, 0
        for line in lines:
            room -= len(line)
            if room < 0:
                break
            count += 1
        # A line that a crash or a full disk cut off must not swallow the next one.
        data = (b"\n" if self._torn else b"") + b"".join(lines[:count])
        done = os.write(self._fd, data)
        self._size += done
        self._torn = done != len(data)
        if self._torn:
            raise OSError(f"{len(data) - done} of {len(data)} bytes did not fit: disk full?")
        return count

    def _open(self) -> None:
        if self._fd >= 0 and not self._is_current():
            self._close()  # deleted or rotated by another program
        if self._fd >= 0:
            return
        from daemon.files import make_folder  # not for readers

        make_folder(self.path.parent)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self.path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size
        self._torn = self._size > 0 and os.pread(self._fd, 1, self._size - 1) != b"\n"

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        os.replace(self.path, previous_file(self.path))
        self._close()
        self._open()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


def previous_file(path: Path) -> Path:
    """The full file that was rotated out; the journal is at most these two."""
    return path.with_name(f"{path.name}.1")


def read(path: Path, since: float = 0.0, wanted: str = "") -> Generator[Record, None, None]:
    """The records that are written by now, from oldest to newest.

    since: seconds since 1970. wanted: only objects that contain this text, in any case. A journal
    that does not exist yet is empty. Raises OSError.
    """
    with ExitStack() as stack:
        folded = wanted.casefold()
        for file in _open_all(path, stack):
            for record in _records(file):
                if record.time >= since and folded in record.object.casefold():
                    yield record


def is_journal(path: Path) -> bool:
    """Whether a file may be a journal: it is empty, or a line of its beginning is a record."""
    with open(path, "rb") as file:
        beginning = file.read(_BEGINNING)
    return not beginning or any(map(decode, beginning.splitlines()))


def _open_all(path: Path, stack: ExitStack) -> list[BufferedReader]:
    """Both files; opened again where the daemon rotated between the two."""
    while True:
        current, older = (_open_file(name, stack) for name in (path, previous_file(path)))
        try:
            seen = os.stat(path) if current else None
        except FileNotFoundError:
            continue
        if current is None or (seen and os.path.samestat(seen, os.fstat(current.fileno()))):
            return [file for file in (older, current) if file]


def _open_file(path: Path, stack: ExitStack) -> BufferedReader | None:
    try:
        return stack.enter_context(open(path, "rb"))
    except FileNotFoundError:
        return None


def _records(file: BufferedReader) -> Iterator[Record]:
    rest = os.fstat(file.fileno()).st_size  # a busy writer must not keep a reader forever
    while rest > 0 and (line := file.readline(rest)):
        rest -= len(line)
        record = decode(line)
        if record is not None:
            yield record
