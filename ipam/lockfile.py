"""A file lock between processes, shared or exclusive, with a time-out.

flock(2) belongs to the open file description, so it also works between threads that each open
the file, and the kernel drops it when its holder is killed. The file is never removed: removing
it would let two holders lock two different files.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipam import faults
from ipam.errors import StoreBusy

INTERVAL = 0.01


class LockFile:
    """An open lock file."""

    def __init__(self, path: Path) -> None:
        """Open the file, creating it (mode 0600) if need be; raises StoreError."""
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise faults.of_os(path, error) from error

    def close(self) -> None:
        """Close the file, which drops the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def shared(self, timeout: float) -> Iterator[None]:
        """Hold the lock together with other sharers; raises StoreBusy after `timeout` seconds."""
        self.acquire_shared(timeout)
        try:
            yield
        finally:
            self.release()

    def acquire_shared(self, timeout: float) -> None:
        """Take the lock together with other sharers; raises StoreBusy after `timeout` seconds."""
        self._acquire(fcntl.LOCK_SH, timeout)

    def release(self) -> None:
        """Give the lock back."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    @contextmanager
    def exclusive(self, timeout: float) -> Iterator[None]:
        """Hold the lock alone; raises StoreBusy after `timeout` seconds."""
        self._acquire(fcntl.LOCK_EX, timeout)
        try:
            yield
        finally:
            self.release()

    def _acquire(self, operation: int, timeout: float) -> None:
        if self._try(operation):
            return
        deadline = time.monotonic() + timeout
        while not self._try(operation):
            if time.monotonic() > deadline:
                raise StoreBusy(
                    self.path, f"{self.path} is locked", f"waited {timeout:g} s; try again later"
                )
            time.sleep(INTERVAL)

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self._fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
