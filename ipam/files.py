"""The files of the store in its data directory, and how the database is created.

A database is always built completely under another name and then renamed to `podwire.db`, so an
empty or half-filled `podwire.db` is never podwire's doing: it is damage.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ipam import sqlite_schema as schema
from ipam.boot import Clock
from ipam.errors import StoreBusy, StoreError, damaged, from_os, translated
from ipam.transaction import Transaction

BUSY_TIMEOUT = 30.0
"""Seconds to wait for other processes, of which there are dozens where pods start without the
daemon."""

_POLL_INTERVAL = 0.01
"""Seconds between attempts to get the lock file."""

Refill = Callable[[Transaction], None]
"""Writes into a new database what is known to be in use, so that it does not start empty."""

Identity = tuple[int, int]


class Files:
    """Where the store's files are.

    lock: locked shared by every transaction, exclusively where the database is replaced.
    fresh: the database that is being built. marker: exists while the database is being replaced;
    if it stays, the replacer was killed.
    """

    LOCK = "podwire.db.lock"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.database = data_dir / "podwire.db"
        self.lock = data_dir / self.LOCK
        self.fresh = data_dir / "podwire.db.new"
        self.marker = data_dir / "podwire.db.replacing"

    def identity(self) -> Identity | None:
        """Device and inode of the database, None if it is missing; StoreDamaged if it is empty."""
        try:
            status = os.stat(self.database)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_os(self.database, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise damaged(self.database, "it is not a regular file")
        if status.st_size == 0:
            raise damaged(self.database, "the file is empty")
        return status.st_dev, status.st_ino


class LockFile:
    """A lock between processes, shared or exclusive, with a time-out.

    Ours and not filelock's, which has no shared lock that a C program or an older podwire would
    respect: every transaction holds this lock shared. flock(2) belongs to the open file
    description, so it also works between threads that each open the file, and the kernel drops it
    when its holder is killed. The file is never removed: two holders would lock two files.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, creating it (mode 0600) if need be; raises StoreError."""
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise from_os(path, error) from error

    def close(self) -> None:
        """Close the file, which drops the lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

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
            time.sleep(_POLL_INTERVAL)

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self._fd, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def make_data_dir(data_dir: Path) -> None:
    """Create the folder, mode 0700, if it is missing."""
    try:
        for parent in reversed(data_dir.parents):
            if not parent.exists():
                parent.mkdir(mode=0o755, exist_ok=True)
        data_dir.mkdir(mode=0o700, exist_ok=True)
        status = data_dir.stat()
    except OSError as error:
        raise from_os(data_dir, error) from error
    # In a sticky folder (/tmp) the kernel keeps others from replacing our files.
    open_to_all = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if open_to_all or status.st_uid not in (0, os.geteuid()):
        raise StoreError(
            data_dir,
            f"{data_dir} can be written by others than root",
            "every user who can write there decides which pod gets which address: chmod 700 it",
        )


def connect(path: Path, mode: str = "rw", patience: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """Open an existing database for use by any one thread at a time; raises sqlite3.Error.

    patience: seconds that it waits for locks.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def check_header(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse a database that is not podwire's, or that a newer podwire wrote."""
    application, version = schema.read_header(connection)
    if application != schema.APPLICATION_ID or version < 1:
        raise StoreError(
            path,
            f"{path} is not podwire's database",
            f"its application ID is {application:#x}; move it away, or set another dataDir",
        )
    if version > schema.VERSION:
        raise StoreError(
            path,
            f"database {path} was written by a newer podwire",
            f"its schema is {version}, this podwire knows {schema.VERSION}; upgrade podwire",
        )


def build(files: Files, boot_id: str, clock: Clock, refill: Refill | None) -> None:
    """Build a database at `files.fresh`, with what `refill` writes; the caller holds the lock."""
    discard(files.fresh)
    try:
        _make_file(files.fresh)
        with translated(files.fresh), closing(connect(files.fresh)) as connection:
            _fill(connection, files.fresh, boot_id, clock, refill)
    except BaseException:
        discard(files.fresh)
        raise


def _make_file(path: Path) -> None:
    """Create an empty file that only root can read."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o600))
    except OSError as error:
        raise from_os(path, error) from error


def _fill(
    connection: sqlite3.Connection, path: Path, boot_id: str, clock: Clock, refill: Refill | None
) -> None:
    connection.execute("BEGIN IMMEDIATE")
    schema.create(connection, boot_id)
    if refill is not None:
        refill(Transaction(connection, path, boot_id, clock))
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")


def discard(path: Path) -> None:
    """Remove an unfinished database."""
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def install(files: Files) -> None:
    """Put the built database into place, durably."""
    try:
        os.rename(files.fresh, files.database)
        sync_directory(files.data_dir)
    except OSError as error:
        raise from_os(files.database, error) from error


def sync_directory(path: Path) -> None:
    """Make renames in the folder survive a power loss (fsync(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unused_name(files: Files) -> Path:
    """A name for a database that is set aside: `podwire.db.damaged-` and the time in UTC."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name, number = f"{files.database}.damaged-{stamp}", 1
    path = Path(name)
    while any(os.path.lexists(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")):
        number += 1
        path = Path(f"{name}.{number}")
    return path


def keep_log(files: Files) -> Path:
    """Move a write-ahead log out of the way of a new database, into which SQLite would replay it.

    The name that its own database would have beside it.
    """
    kept = _unused_name(files)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(f"{files.database}{suffix}", f"{kept}{suffix}")
    return kept
