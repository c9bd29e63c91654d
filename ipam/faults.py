"""SQLite's and the kernel's errors as the exceptions of `ipam.errors`."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ipam.codec import NotAnAddress
from ipam.errors import StoreBusy, StoreDamaged, StoreError

BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
CUT_OFF = sqlite3.SQLITE_IOERR_SHORT_READ
DENIED = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}

HINT_FULL = "free some space on it, then try again; nothing was changed"
HINT_READ_ONLY = "remount it writable, or set dataDir to a folder that is; nothing was changed"
HINT_DENIED = "check that podwire runs as root and owns the folder; nothing was changed"


def damaged(path: Path, details: str) -> StoreDamaged:
    """The error for a damaged database."""
    return StoreDamaged(path, f"database {path} is damaged", details)


def full(path: Path, details: str) -> StoreError:
    """The error for a file system without space."""
    return StoreError(path, f"no space left for {path}", f"{details}; {HINT_FULL}")


def read_only(path: Path, details: str) -> StoreError:
    """The error for a file system or a file that cannot be written."""
    return StoreError(path, f"{path} cannot be written", f"{details}; {HINT_READ_ONLY}")


def of_sqlite(path: Path, error: sqlite3.Error) -> StoreError:
    """The exception for an error of SQLite on the database at `path`."""
    # The low byte is the primary code (https://www.sqlite.org/rescode.html). Errors that
    # Python raises itself, about text that is not UTF-8 for one, have no code.
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    name = getattr(error, "sqlite_errorname", None)
    details = f"{error} ({name})" if name else str(error)
    if primary in BUSY:
        return StoreBusy(path, f"database {path} is busy", f"{details}; try again later")
    if primary in DAMAGED or code == CUT_OFF or _is_schema_gone(primary, str(error)):
        return damaged(path, details)
    if primary == sqlite3.SQLITE_FULL or _has_no_space(path):
        return full(path, details)
    if primary == sqlite3.SQLITE_READONLY:
        return read_only(path, details)
    if primary in DENIED:
        return StoreError(path, f"cannot open database {path}", f"{details}; {HINT_DENIED}")
    return StoreError(path, f"database {path} failed", details)


def of_os(path: Path, error: OSError) -> StoreError:
    """The exception for an error of the kernel on a file of the store."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return full(path, str(error))
    if error.errno == errno.EROFS:
        return read_only(path, str(error))
    return StoreError(path, f"cannot use {path}", f"{error}; {HINT_DENIED}")


def _is_schema_gone(primary: int | None, text: str) -> bool:
    if primary is None:
        return "UTF-8" in text
    return primary == sqlite3.SQLITE_ERROR and text.startswith(("no such table", "no such column"))


def _has_no_space(path: Path) -> bool:
    """A full disk shows as an I/O error where SQLite grows the WAL's shared memory."""
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise what goes wrong with the database in the block as StoreError."""
    try:
        yield
    except (sqlite3.Error, NotAnAddress, UnicodeDecodeError) as error:
        raise of_query(path, error) from error


def of_query(path: Path, error: Exception) -> StoreError:
    """The exception for what went wrong with a query or with reading its answer."""
    if isinstance(error, sqlite3.Error):
        return of_sqlite(path, error)
    # Python decodes SQLite's messages, and a message may quote damaged text.
    return damaged(path, str(error))
