"""Files that the daemon reads and writes.

A reader of what it writes sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ipam.files import sync_directory

_HINTS = {
    errno.EROFS: "remount it writable",
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "see whether a security module forbids it",
    errno.EPERM: "see whether something is immutable there (lsattr)",
    errno.ENOTDIR: "a part of its path is no folder: move that away",
    errno.EISDIR: "a folder is in its place: move that away",
}
_FORBIDDEN = (errno.EACCES, errno.EPERM)
"""Of these another place would be no remedy."""
_PROTECTED = ("/usr", "/boot", "/efi", "/etc")
"""What ProtectSystem=full makes read-only for a unit (systemd.exec(5))."""
_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)

FileState = tuple[int, ...]
SETTLE_SECONDS = 0.5
"""A file must be unchanged for so long before it is read: an editor that writes it in place needs a
while, and half of a list is a valid list."""


class Settling:
    """Whether files that are looked at again and again are others, and are not being written.

    now, today: seconds by the monotonic clock, by the wall clock.
    """

    def __init__(
        self, now: Callable[[], float] = time.monotonic, today: Callable[[], float] = time.time
    ) -> None:
        self._now, self._today = now, today
        self._taken: object = None
        self._seen: object = None
        self._seen_at = 0.0
        self._is_first = True

    def has_settled(self, state: object, changed: int) -> bool:
        """Whether to read what has this state: it is another one, and SETTLE_SECONDS old.

        changed: when the last change was, in nanoseconds by the wall clock.
        """
        if state == self._taken:
            return False
        if state != self._seen:
            self._seen, self._seen_at = state, self._now()
            untouched = self._today() - changed / 1e9
            # At the start alone: later the wall clock may have jumped in the middle of an edit.
            return self._is_first and untouched > SETTLE_SECONDS
        return self._now() - self._seen_at >= SETTLE_SECONDS

    def take(self, state: object) -> None:
        """Note that what has this state was read: it is not read again."""
        self._taken, self._is_first = state, False

    def forget(self) -> None:
        """Note that it could not be read: whatever is there next is read."""
        self._taken = self._seen = None


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder with this mode, whatever the umask; those that contain it get 0755.

    What is there keeps its mode. Raises OSError.
    """
    try:
        _make_one(path, mode)
    except FileNotFoundError:
        if path == path.parent:
            raise
        make_folder(path.parent, 0o755)
        _make_one(path, mode)


def _make_one(path: Path, mode: int) -> None:
    try:
        path.mkdir(mode)
    except OSError as error:
        if path.is_dir():
            return
        if not isinstance(error, FileExistsError):
            raise
        # mkdir(2) says of a link that leads nowhere, too, that the file exists.
        kind = "a link that leads nowhere" if path.is_symlink() else "no folder"
        raise NotADirectoryError(errno.ENOTDIR, f"it is {kind}", str(path)) from error
    else:
        path.chmod(mode)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading. Raises OSError, also where it is something else."""
    # O_NONBLOCK: a FIFO in the file's place must not block the daemon.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    # Of a directory Python makes no file, and leaves the descriptor open.
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return open(fd, "rb")


def state_of(found: os.stat_result) -> FileState:
    """What is different once a file has changed, or is another one.

    The time of change (ctime) is part of it: unlike the time of modification, no program can set
    it.
    """
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def read_regular(path: Path, most: int) -> bytes:
    """The content of a regular file. Raises OSError, also where it has more than `most` bytes."""
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))
    return data


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of what is at a path; None where nothing is."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def fresh_name(path: Path) -> Path:
    """The name of a file that is about to be renamed to `path`; a killed writer may leave it."""
    # Container runtimes take files by their ending; this one has none of theirs.
    return path.with_name(f".{path.name}.new")


def replace_file(path: Path, data: bytes, mode: int, *, durable: bool = False) -> None:
    """Write a file beside `path` and rename it into place. Raises OSError, which names the file.

    durable: also against power loss (fsync(2)). One writer at a time: what an earlier one that was
    killed left behind is overwritten.
    """
    fresh = fresh_name(path)
    with suppress(FileNotFoundError):
        fresh.unlink()
    try:
        _write(fresh, data, mode, durable)
        os.replace(fresh, path)
    except BaseException as error:
        with suppress(OSError):
            fresh.unlink()
        if isinstance(error, OSError) and error.filename is None:  # of write(2)
            error.filename = str(path)
        raise
    if durable:
        sync_directory(path.parent)


def swap_file(path: Path, data: bytes, mode: int, read_max: int) -> bytes | None:
    """As `replace_file`, durable, and what the file had at that instant; None where it was missing.

    So nothing is lost that another program renamed into place meanwhile. Of a file system that
    cannot exchange names the answer is `data`. read_max: bytes of the old file that are read.
    """
    fresh = fresh_name(path)
    with suppress(FileNotFoundError):
        fresh.unlink()
    try:
        _write(fresh, data, mode, durable=True)
        old = _put(fresh, path, data, read_max)
    finally:
        with suppress(OSError):
            fresh.unlink()
    sync_directory(path.parent)
    return old


def _put(fresh: Path, path: Path, data: bytes, read_max: int) -> bytes | None:
    """Rename a file with `data` into place; what was there before."""
    while True:
        try:
            _rename(fresh, path, _RENAME_EXCHANGE)
        except FileNotFoundError:
            try:
                _rename(fresh, path, _RENAME_NOREPLACE)
            except FileExistsError:
                continue
            return None
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            os.replace(fresh, path)
            return data
        with open_regular(fresh) as file:
            return file.read(read_max)


def _rename(old: Path, new: Path, flags: int) -> None:
    names = os.fsencode(old), os.fsencode(new)
    if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(new))


def _write(path: Path, data: bytes, mode: int, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)  # whatever the umask
        file.write(data)
        file.flush()
        if durable:
            os.fsync(fd)


def explain(what: str, path: Path, error: OSError, key: str = "") -> str:
    """Why a file cannot be written. what: what it is for; key: of podwired.yaml, where it is."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    hint = _hint(error.errno or 0, path.parent)
    if key and error.errno not in _FORBIDDEN:
        hint += f", or set `{key}` in podwired.yaml to another place"
    found = f" ({error.filename})" if error.errno == errno.ENOTDIR and error.filename else ""
    return f"{what} {path} cannot be written: {reason}{found}; {hint}"


def _hint(code: int, folder: Path) -> str:
    hint = _HINTS.get(code, "podwire tries again")
    if code == errno.EROFS and _is_in_unit() and _is_protected(folder):
        line = f"add the line ReadWritePaths={folder} below [Service] in `systemctl edit podwired`"
        line += " and restart it"
        return f"systemd's unit keeps it read-only: {line}, or {hint} where it is so outside, too"
    if code not in _FORBIDDEN:
        return hint
    if os.geteuid() != 0:
        return f"podwired must run as root; {hint}"
    if code == errno.EACCES and (owner := _owner_of(folder)):
        return f"{folder} belongs to user {owner}: podwired needs CAP_DAC_OVERRIDE; {hint}"
    return hint


def _is_in_unit() -> bool:
    return "INVOCATION_ID" in os.environ  # systemd.exec(5)


def _is_protected(folder: Path) -> bool:
    return any(folder.resolve().is_relative_to(place) for place in _PROTECTED)


def _owner_of(path: Path) -> int:
    """The user ID; that of root where it cannot be read."""
    try:
        return path.stat().st_uid
    except OSError:
        return 0
