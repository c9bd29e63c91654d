"""What can go wrong in IPAM, as exceptions that carry a CNI error code; SQLite's and the kernel's
errors are translated into them.

Codes below 100 are those of the CNI specification (SPEC.md, section "Error"); from 100 on they
are podwire's own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
INVALID_CONFIG = 7
TRY_AGAIN = 11
RANGE_EXHAUSTED = 100
ADDRESS_TAKEN = 105


class IpamError(Exception):
    """An IPAM operation failed; `code`, `msg` and `details` are those of the CNI error object."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = code
        self.msg = msg
        self.details = details

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg


class ConfigError(IpamError):
    """A key of the configuration or a CNI argument is wrong; the message names key and value."""

    def __init__(self, msg: str, *, code: int = INVALID_CONFIG, details: str = "") -> None:
        super().__init__(code, msg, details)


class StoreError(IpamError):
    """The database at `path` cannot be used: permission, full disk, read-only, unknown version."""

    def __init__(self, path: Path, msg: str, details: str = "", *, code: int = IO_FAILURE) -> None:
        super().__init__(code, msg, details)
        self.path = path


class StoreBusy(StoreError):
    """Another process held the database for longer than the time-out; try again later."""

    def __init__(self, path: Path, msg: str, details: str = "") -> None:
        super().__init__(path, msg, details, code=TRY_AGAIN)


class StoreDamaged(StoreError):
    """The database is damaged; nothing was changed. `ipam.recovery.recover` rebuilds it."""


class AddressTaken(IpamError):
    """The requested address is allocated to another owner, or the owner has a different one."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(ADDRESS_TAKEN, msg, details)


class AddressResting(IpamError):
    """Only addresses are left whose rest period is not over."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(TRY_AGAIN, msg, details)


class RangeExhausted(IpamError):
    """Every address of a range set is allocated."""

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(RANGE_EXHAUSTED, msg, details)


class NotAnAddress(ValueError):
    """A value of the database that no `ipam.ranges.encode` wrote: the database is damaged."""


# Result codes of SQLite (https://www.sqlite.org/rescode.html), by number: this module is loaded by
# calls that need no store, and so no sqlite3.
_ERROR, _FULL, _READONLY, _SHORT_READ = 1, 13, 8, 522
_BUSY = frozenset({5, 6, 15})  # BUSY, LOCKED, PROTOCOL
_DAMAGED = frozenset({11, 26, 24})  # CORRUPT, NOTADB, FORMAT
_DENIED = frozenset({14, 3, 23})  # CANTOPEN, PERM, AUTH

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that pass: too many open files, or no memory."""
_HINT_FULL = "free some space on it, then try again"
_HINT_READ_ONLY = "remount it writable, or set dataDir to a folder that is"
_HINT_DENIED = "check that podwire runs as root and owns the folder"


def damaged(path: Path, details: str) -> StoreDamaged:
    """The error for a damaged database."""
    return StoreDamaged(path, f"database {path} is damaged", details)


def _full(path: Path, details: str) -> StoreError:
    """The error for a file system without space."""
    return StoreError(path, f"no space left for {path}", f"{details}; {_HINT_FULL}")


def _read_only(path: Path, details: str) -> StoreError:
    """The error for a file system or a file that cannot be written."""
    return StoreError(path, f"{path} cannot be written", f"{details}; {_HINT_READ_ONLY}")


def _exhausted(path: Path, details: str) -> StoreError:
    """The error for a node or a process that has no more descriptors or memory."""
    hint = "too many files are open, or memory is full"
    return StoreError(path, f"cannot use {path} now", f"{details}; {hint}", code=TRY_AGAIN)


def from_sqlite(path: Path, error: sqlite3.Error) -> StoreError:
    """The exception for an error of SQLite on the database at `path`."""
    # The low byte is the primary code (https://www.sqlite.org/rescode.html). Errors that
    # Python raises itself, about text that is not UTF-8 for one, have no code.
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    name = getattr(error, "sqlite_errorname", None)
    details = f"{error} ({name})" if name else str(error)
    if primary in _BUSY:
        return StoreBusy(path, f"database {path} is busy", f"{details}; try again later")
    if primary in _DAMAGED or code == _SHORT_READ or _is_schema_gone(primary, str(error)):
        return damaged(path, details)
    if primary == _FULL or _has_no_space(path):
        return _full(path, details)
    if primary == _READONLY:
        return _read_only(path, details)
    if primary in _DENIED and _is_out_of_descriptors():
        return _exhausted(path, details)
    if primary in _DENIED:
        return StoreError(path, f"cannot open database {path}", f"{details}; {_HINT_DENIED}")
    return StoreError(path, f"database {path} failed", details)


def from_os(path: Path, error: OSError) -> StoreError:
    """The exception for an error of the kernel on a file of the store."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(path, str(error))
    if error.errno == errno.EROFS:
        return _read_only(path, str(error))
    if error.errno in EXHAUSTED:
        return _exhausted(path, str(error))
    return StoreError(path, f"cannot use {path}", f"{error}; {_HINT_DENIED}")


def _is_schema_gone(primary: int | None, text: str) -> bool:
    if primary is None:
        return "UTF-8" in text
    return primary == _ERROR and text.startswith(("no such table", "no such column"))


def _is_out_of_descriptors() -> bool:
    """SQLite does not say why it cannot open a file."""
    try:
        os.close(os.open("/", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in EXHAUSTED
    return False


def _has_no_space(path: Path) -> bool:
    """A full disk shows as an I/O error where SQLite grows the WAL's shared memory."""
    try:
        return os.statvfs(path.parent).f_bavail == 0
    except OSError:
        return False


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise what goes wrong with the database in the block as StoreError."""
    import sqlite3  # not for VERSION, which needs this module and no store

    try:
        yield
    except (sqlite3.Error, NotAnAddress, UnicodeDecodeError) as error:
        raise from_query(path, error) from error


def from_query(path: Path, error: Exception) -> StoreError:
    """The exception for what went wrong with a query or with reading its answer."""
    import sqlite3

    if isinstance(error, sqlite3.Error):
        return from_sqlite(path, error)
    # Python decodes SQLite's messages, and a message may quote damaged text.
    return damaged(path, str(error))
