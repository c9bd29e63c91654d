"""The static source: a file of nodes, looked at again and again; the embedded default."""

from __future__ import annotations

import gc
import os
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from daemon.config.yaml import FILE_MAX, FileFault
from daemon.model import News, Snapshot, keep_same
from daemon.sources.nodesfile import has_end_mark, parse_nodes

# How long a file must look the same before it is taken: whoever writes it in place needs a while,
# and half of a list of nodes is a valid list of nodes.
SETTLE_SECONDS = 0.5

# The time of change (ctime) comes first: unlike the other, nobody can set it.
_Look = tuple[int, int, int, int, int]


class StaticSource:
    """Snapshots of a file. A broken edit keeps the last good one in use, and `fault` says so.

    A file that was not touched of late is taken at the first poll; else a poll takes it that finds
    it unchanged for SETTLE_SECONDS. Once it ended with `...`, it must. now, today: seconds by the
    monotonic clock, by the wall clock.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.monotonic,
        today: Callable[[], float] = time.time,
    ) -> None:
        self.fault = ""
        self.news = News()
        self._path = path
        self._now, self._today = now, today
        self._seen: _Look | None = None
        self._seen_at = 0.0
        self._taken: _Look | None = None
        self._snapshot: Snapshot | None = None
        self._marked = False

    def fileno(self) -> int | None:
        """None: a file that is renamed, mounted or bound anew tells nobody; one look is cheap."""
        return None

    def poll(self) -> Snapshot | None:
        """The file's snapshot if it is another one than the last. Never raises for the file."""
        try:
            look = _look(os.stat(self._path))
            self.news = replace(self.news, heard=self._now())
            if not self._has_settled(look):
                return None
            data = self._read(look)
            if data is None:
                return None
            self._taken = look
            self.news = replace(self.news, bytes=self.news.bytes + len(data))
            fresh = self._parse(data)
            # What thousands of new objects make due comes here, not amid the change that follows.
            gc.collect()
            return self._take(fresh)
        except OSError as error:
            self._taken = self._seen = None
            self.fault = f"{self._path}: could not be read: {error.strerror}"
        except FileFault as error:
            self.fault = str(error)
        return None

    def close(self) -> None:
        """Nothing is held open."""

    def _has_settled(self, look: _Look) -> bool:
        """Whether the file is one that was not taken yet, and that nobody writes any more."""
        if look == self._taken:
            return False
        if look != self._seen:
            self._seen, self._seen_at = look, self._now()
            untouched = self._today() - look[0] / 1e9
            # At the start alone: later the wall clock may have jumped in the middle of an edit.
            return self._snapshot is None and untouched > SETTLE_SECONDS
        return self._now() - self._seen_at >= SETTLE_SECONDS

    def _read(self, look: _Look) -> bytes | None:
        """The whole file; None where it changed meanwhile. Raises OSError, FileFault."""
        # O_NONBLOCK: a FIFO in the file's place must not hold up the daemon.
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise FileFault(self._path, 0, "is no regular file")
            data = file.read(FILE_MAX + 1)
            return data if _look(before) == _look(os.fstat(fd)) == look else None

    def _parse(self, data: bytes) -> Snapshot:
        """The snapshot. Raises FileFault, also where the end is missing that was there before.

        Lines that are missing at the end of a list make another right list, of fewer nodes.
        """
        marked = has_end_mark(data)
        if self._marked and not marked:
            why = "its last line was `...` before, and is not now: is it cut off?"
            raise FileFault(self._path, 0, why)
        fresh = parse_nodes(data, self._path)
        self._marked = marked
        return fresh

    def _take(self, fresh: Snapshot) -> Snapshot | None:
        self.fault = ""
        old, self._snapshot = self._snapshot, fresh
        if old is not None:
            self._snapshot = Snapshot(keep_same(old.nodes, fresh.nodes), fresh.cluster_cidrs)
            if self._snapshot == old:
                return None
        news = self.news
        self.news = replace(news, events=news.events + 1, snapshots=news.snapshots + 1)
        return self._snapshot


def _look(status: os.stat_result) -> _Look:
    return status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev
