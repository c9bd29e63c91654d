"""One call at a time per attachment, whichever of the daemon's processes has it."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress

# struct flock with 64-bit offsets (fcntl(2)): type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi")
_OFFSETS = (1 << 62) - 1


def _place(attachment: Hashable) -> int:
    # The seed of hash() was made before the fork. Two attachments with one hash only wait in vain.
    return hash(attachment) & _OFFSETS


def _change(file: int, command: int, kind: int, place: int) -> None:
    fcntl.fcntl(file, command, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))


class LocksFile:
    """Locks of bytes in an empty file, which forked processes share.

    Such a lock belongs to the open file, not to the process (fcntl(2), "Open file description
    locks"): each process opens the file itself, and the kernel drops a dead one's locks.
    """

    def __init__(self) -> None:
        self._fd = os.memfd_create("podwire-attachments", os.MFD_CLOEXEC)

    def open(self) -> int:
        """A descriptor of this process's own. Raises OSError."""
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)


class AttachmentLocks:
    """One lock for each attachment in use; it goes with its last user.

    file: what `LocksFile.open` returned; it is kept. wait: called before a thread waits.
    """

    def __init__(self, file: int, wait: Callable[[], None] = lambda: None) -> None:
        self._file, self._wait = file, wait
        self._mutex = threading.Lock()
        self._locks: dict[Hashable, tuple[threading.Lock, int]] = {}

    @contextmanager
    def holding(self, attachment: Hashable) -> Iterator[None]:
        """Hold the attachment's lock for the duration."""
        with self._mutex:
            lock, users = self._locks.get(attachment) or (threading.Lock(), 0)
            self._locks[attachment] = lock, users + 1
        try:
            if users:
                self._wait()
            with lock, self._holding_across_processes(attachment):
                yield
        finally:
            with self._mutex:
                lock, users = self._locks[attachment]
                if users > 1:
                    self._locks[attachment] = lock, users - 1
                else:
                    del self._locks[attachment]

    @contextmanager
    def _holding_across_processes(self, attachment: Hashable) -> Iterator[None]:
        place = _place(attachment)
        try:
            _change(self._file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, place)
        except BlockingIOError:
            self._wait()
            _change(self._file, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, place)
        try:
            yield
        finally:
            _change(self._file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, place)

    def __len__(self) -> int:
        """How many attachments are in use."""
        return len(self._locks)


class IdleAttachments:
    """Keeps calls away from attachments that none is about; for one thread."""

    def __init__(self, file: LocksFile) -> None:
        self._locks, self._file = file, -1

    @contextmanager
    def holding(self, attachments: Iterable[Hashable]) -> Iterator[frozenset[Hashable]]:
        """Hold those that no call is about for the duration, without waiting; which they are."""
        if self._file < 0:
            self._file = self._locks.open()  # not before the processes are forked
        held = set[Hashable]()
        try:
            for attachment in attachments:
                with suppress(BlockingIOError):
                    _change(self._file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, _place(attachment))
                    held.add(attachment)
            yield frozenset(held)
        finally:
            for attachment in held:
                _change(self._file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _place(attachment))
