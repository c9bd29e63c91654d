"""What SQLite and the kernel report, as the store's errors."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
from pathlib import Path

import pytest

from ipam.errors import (
    ConfigError,
    NotAnAddress,
    StoreBusy,
    StoreDamaged,
    StoreError,
    from_os,
    from_query,
    from_sqlite,
    translated,
)

OTHER, BUSY, DAMAGED, FULL, READ_ONLY, DENIED = (
    "failed", "is busy", "is damaged", "no space left", "cannot be written", "cannot open",
)  # fmt: skip


def sqlite_error(code: int | None, text: str = "what happened") -> sqlite3.Error:
    error = sqlite3.DatabaseError(text)
    if code is not None:
        error.sqlite_errorcode = code
        error.sqlite_errorname = f"CODE_{code}"
    return error


@pytest.mark.parametrize(
    ("code", "kind", "msg"),
    [
        (sqlite3.SQLITE_BUSY, StoreBusy, BUSY),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy, BUSY),
        (sqlite3.SQLITE_LOCKED, StoreBusy, BUSY),
        (sqlite3.SQLITE_PROTOCOL, StoreBusy, BUSY),
        (sqlite3.SQLITE_CORRUPT, StoreDamaged, DAMAGED),
        (sqlite3.SQLITE_CORRUPT_VTAB, StoreDamaged, DAMAGED),
        (sqlite3.SQLITE_NOTADB, StoreDamaged, DAMAGED),
        (sqlite3.SQLITE_FORMAT, StoreDamaged, DAMAGED),
        (sqlite3.SQLITE_IOERR_SHORT_READ, StoreDamaged, DAMAGED),
        (sqlite3.SQLITE_FULL, StoreError, FULL),
        (sqlite3.SQLITE_READONLY, StoreError, READ_ONLY),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreError, READ_ONLY),
        (sqlite3.SQLITE_CANTOPEN, StoreError, DENIED),
        (sqlite3.SQLITE_PERM, StoreError, DENIED),
        (sqlite3.SQLITE_AUTH, StoreError, DENIED),
        (sqlite3.SQLITE_IOERR, StoreError, OTHER),
        (sqlite3.SQLITE_ERROR, StoreError, OTHER),
        (None, StoreError, OTHER),
    ],
)
def test_errors_of_sqlite(
    tmp_path: Path, code: int | None, kind: type[StoreError], msg: str
) -> None:
    path = tmp_path / "podwire.db"
    found = from_sqlite(path, sqlite_error(code))
    assert type(found) is kind
    assert msg in found.msg
    assert found.path == path
    assert str(path) in found.msg
    assert "what happened" in found.details
    assert ("CODE_" in found.details) == (code is not None)
    assert found.code == (11 if kind is StoreBusy else 5)


@pytest.mark.parametrize(
    ("code", "text", "is_damage"),
    [
        (sqlite3.SQLITE_ERROR, "no such table: pool", True),
        (sqlite3.SQLITE_ERROR, "no such column: next", True),
        (sqlite3.SQLITE_IOERR, "no such table: pool", False),
        (sqlite3.SQLITE_ERROR, "syntax error, no such table", False),
        (None, "Could not decode to UTF-8 column 'network'", True),
    ],
)
def test_a_schema_or_text_that_is_gone(
    tmp_path: Path, code: int | None, text: str, is_damage: bool
) -> None:
    found = from_sqlite(tmp_path / "podwire.db", sqlite_error(code, text))
    assert isinstance(found, StoreDamaged) == is_damage


def test_a_folder_that_is_gone_is_no_full_disk(tmp_path: Path) -> None:
    found = from_sqlite(tmp_path / "gone" / "podwire.db", sqlite_error(sqlite3.SQLITE_IOERR))
    assert OTHER in found.msg


@pytest.mark.parametrize(
    ("number", "msg"),
    [
        (errno.ENOSPC, FULL),
        (errno.EDQUOT, FULL),
        (errno.EROFS, READ_ONLY),
        (errno.EACCES, "cannot use"),
        (errno.ENOENT, "cannot use"),
    ],
)
def test_errors_of_the_kernel(number: int, msg: str) -> None:
    path = Path("/data/podwire.db")
    found = from_os(path, OSError(number, os.strerror(number)))
    assert msg in found.msg
    assert str(path) in found.msg
    assert os.strerror(number) in found.details


def test_a_query_whose_answer_cannot_be_read() -> None:
    path = Path("/data/podwire.db")
    assert type(from_query(path, sqlite_error(sqlite3.SQLITE_BUSY))) is StoreBusy
    found = from_query(path, NotAnAddress("ff is not an address"))
    assert type(found) is StoreDamaged
    assert found.details == "ff is not an address"


@pytest.mark.parametrize(
    "error",
    [
        sqlite_error(sqlite3.SQLITE_CORRUPT),
        NotAnAddress("x"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    ],
)
def test_a_block_raises_the_stores_errors(error: Exception) -> None:
    with pytest.raises(StoreDamaged) as caught, translated(Path("/data/podwire.db")):
        raise error
    assert caught.value.__cause__ is error


def test_a_block_leaves_other_errors_alone() -> None:
    with pytest.raises(KeyError), translated(Path("/data/podwire.db")):
        raise KeyError
    with translated(Path("/data/podwire.db")):
        pass


def test_an_error_reads_as_message_and_details() -> None:
    assert str(ConfigError("what", details="why")) == "what: why"
    assert str(ConfigError("what")) == "what"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_passes_is_tried_again(number: int) -> None:
    found = from_os(Path("/x/podwire.db"), OSError(number, os.strerror(number)))
    assert found.code == 11
    assert "runs as root" not in found.details


def test_a_process_without_descriptors_is_not_told_to_run_as_root(tmp_path: Path) -> None:
    path = tmp_path / "podwire.db"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(StoreError) as caught, translated(path):
            sqlite3.connect(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.code == 11
    assert "too many files are open" in caught.value.details
