"""The file by which a container's probes learn whether the daemon is alive, and ready.

Its lines: until when they hold, in seconds since boot; `alive`, or which loops are stuck; `ready`,
or why the node is not. `packaging/image/podwire-probe` reads it with a shell's own commands. Unlike
the HTTP endpoint it needs no port, which another program of the node could have, and is there
whatever the configuration says of metrics.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from daemon.files import explain
from daemon.log import Log

VARIABLE = "PODWIRE_HEALTH"
HOLDS = 30
"""Seconds that what was written holds: the daemon writes it anew after a sixth of them."""
_SIZE = 4096
_LINE_MAX = 2000  # bytes


class HealthFile:
    """The writer. Nothing is written where the environment names no file."""

    def __init__(self, log: Log, env: Mapping[str, str] = os.environ) -> None:
        """Remove what an earlier daemon left: this one has just started."""
        self._log, self._fault = log, ""
        self._path = Path(env[VARIABLE]) if env.get(VARIABLE) else None
        self._lines: tuple[str, ...] = ()
        self._written = 0.0
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()

    def write(self, stall: str, unready: str) -> None:
        """Take which loops are stuck, and why the node is not ready; empty for neither."""
        if self._path is None:
            return
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        lines = stall or "alive", unready or "ready"
        if lines == self._lines and now - self._written < HOLDS / 6:
            return
        try:
            _put(self._path, (str(int(now) + HOLDS), *lines))
        except OSError as error:
            self._note(explain("the health", self._path, error))
            return
        self._note("")
        self._lines, self._written = lines, now

    def _note(self, fault: str) -> None:
        if fault and fault != self._fault:
            self._log.error(fault)
        self._fault = fault


def _put(path: Path, lines: Sequence[str]) -> None:
    """Write in place: once the file is there, a file system that is full takes it yet."""
    data = b"\n".join(" ".join(line.split()).encode(errors="replace")[:_LINE_MAX] for line in lines)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    try:
        os.pwrite(fd, data.ljust(_SIZE, b"\n"), 0)
    finally:
        os.close(fd)
