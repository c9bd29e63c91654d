"""The store: one SQLite database per node, shared by every podwire process on it.

- The database is in WAL mode with synchronous=NORMAL: what was committed survives kill -9, and a
  reader never waits for a writer. A power loss may take the last commits, never consistency
  (https://www.sqlite.org/pragma.html#pragma_synchronous), and they are of no use after it: no
  pod outlives its boot.
- Every transaction holds the lock file shared. Creating or replacing the database takes it
  exclusively, so no process commits into a file that was just set aside.
- A `Store` may be used from several threads: they share one connection, under a lock. It may not
  be carried over a fork.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from ipam import boot, files
from ipam.boot import SYSTEM, Clock, Purged
from ipam.errors import StoreBusy, StoreError, damaged, from_sqlite, translated
from ipam.files import BUSY_TIMEOUT, Files, Identity, LockFile, Refill
from ipam.transaction import Allocation, Owner, Transaction

__all__ = ["Allocation", "Owner", "Purged", "Store", "Transaction", "open_store", "read_store"]

T = TypeVar("T")

ATTEMPTS = 5
READ_PATIENCE = 0.1
"""Seconds that a reader waits for other processes if it comes again anyway."""


def open_store(
    data_dir: Path,
    *,
    boot_id: str | None = None,
    clock: Clock = SYSTEM,
    refill: Refill | None = None,
    create: bool = True,
    patience: float = BUSY_TIMEOUT,
) -> Store:
    """Open `podwire.db` in the folder, creating both if need be.

    `refill` writes into a database that had to be created what is known to be in use; it may not
    open the store itself. `patience`: seconds that each step waits for other processes. Raises
    StoreDamaged (see `ipam.recovery`), StoreBusy, or StoreError with code 5: permission, full
    disk, read-only, written by a newer podwire, or missing with `create` false.
    """
    data_dir = data_dir.absolute()
    if create:
        files.make_data_dir(data_dir)
    elif not Files(data_dir).database.exists():
        raise StoreError(data_dir, f"there is no podwire.db in {data_dir}")
    boot_id = boot.read_boot_id() if boot_id is None else boot_id
    store = Store(data_dir, boot_id, clock, refill, patience)
    try:
        with store.read():
            return store
    except BaseException:
        store.close()
        raise


def read_store(
    data_dir: Path, read: Callable[[Transaction], T], patience: float = READ_PATIENCE
) -> T | None:
    """What `read` makes of one snapshot of the store in a folder; None where there is no store.

    patience: see `open_store`, and raises the same.
    """
    if not Files(data_dir).database.exists():
        return None
    opened = open_store(data_dir, create=False, patience=patience)
    with opened as store, store.read() as tx:
        return read(tx)


class Store:
    """An open store; `open_store` makes one.

    `purged` is what the first open of this boot freed, `created` whether this store had to
    create the database.
    """

    def __init__(
        self,
        data_dir: Path,
        boot_id: str,
        clock: Clock,
        refill: Refill | None,
        patience: float = BUSY_TIMEOUT,
    ) -> None:
        self.data_dir = data_dir
        self.path = Files(data_dir).database
        self.boot_id = boot_id
        self.clock = clock
        self.created, self.purged = False, Purged()
        self._files = Files(data_dir)
        self._marker = os.fspath(self._files.marker)
        self._refill, self._patience = refill, patience
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity | None = None
        self._mutex = threading.Lock()
        self._holder = 0
        self._pid = os.getpid()
        self._lock = LockFile(self._files.lock)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; again is no error."""
        if self._pid == os.getpid():
            self._lock_thread()
            try:
                self._drop_connection()
            finally:
                self._unlock_thread()
        self._lock.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Read and write: commit at the end of the block, roll back if it raises anything."""
        connection = self._begin("BEGIN IMMEDIATE")
        try:
            yield Transaction(connection, self.path, self.boot_id, self.clock)
            self._run(connection, "COMMIT")
        finally:
            self._end(connection)

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Read one snapshot; writing raises StoreError."""
        connection = self._begin("BEGIN")
        try:
            yield Transaction(connection, self.path, self.boot_id, self.clock, writable=False)
        finally:
            self._end(connection)

    def _run(self, connection: sqlite3.Connection, sql: str) -> None:
        try:
            connection.execute(sql)
        except sqlite3.Error as error:
            raise from_sqlite(self.path, error) from error

    # No context managers in here: every CNI call passes several times.
    def _begin(self, sql: str) -> sqlite3.Connection:
        """This thread alone, in a transaction of the database that is in place right now."""
        self._lock_thread()
        try:
            connection = self._locked()
        except BaseException:
            self._unlock_thread()
            raise
        try:
            self._start(connection, sql)
        except BaseException:
            self._end(connection)
            raise
        return connection

    def _start(self, connection: sqlite3.Connection, sql: str) -> None:
        until = time.monotonic() + self._patience
        while True:
            try:
                self._run(connection, sql)
            except StoreBusy:
                # SQLite adds up the lengths of its sleeps, also of those that signals cut short.
                if time.monotonic() >= until:
                    raise
            else:
                return

    def _end(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
        finally:
            self._lock.release()
            self._unlock_thread()

    def _locked(self) -> sqlite3.Connection:
        """The connection, with the lock file held shared."""
        for _ in range(ATTEMPTS):
            self._lock.acquire_shared(self._patience)
            try:
                connection = self._attached()
            except BaseException:
                self._lock.release()
                raise
            if connection is not None:
                return connection
            self._lock.release()
            self._create()
        raise StoreError(self.path, f"{self.path} keeps disappearing")

    def _lock_thread(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("a Store cannot be carried over a fork: open it again")
        if self._holder == threading.get_ident():
            raise RuntimeError("a transaction is already open in this thread")
        if not self._mutex.acquire(timeout=self._patience):
            raise StoreBusy(self.path, f"database {self.path} is busy in this process")
        self._holder = threading.get_ident()

    def _unlock_thread(self) -> None:
        self._holder = 0
        self._mutex.release()

    def _attached(self) -> sqlite3.Connection | None:
        """The connection, reopened if another file is in place by now; None if there is none."""
        if os.access(self._marker, os.F_OK):
            raise damaged(self.path, "the process that was replacing it was killed")
        identity = self._files.identity()
        if identity is None or identity != self._identity:
            self._drop_connection()
        if identity is not None and self._connection is None:
            with translated(self.path):
                self._connection = self._connect()
            self._identity = identity
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = files.connect(self.path, patience=self._patience)
        try:
            files.check_header(self.path, connection)
            purged = boot.purge(connection, self.path, self.boot_id)
        except BaseException:
            connection.close()
            raise
        self.purged = self.purged if purged == Purged() else purged
        return connection

    def _drop_connection(self) -> None:
        # SQLite checks whether the file was moved before it removes the WAL at close
        # (SQLITE_FCNTL_HAS_MOVED), so this leaves a successor's WAL alone.
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._identity = None

    def _create(self) -> None:
        """Build the database unless another process was quicker."""
        with self._lock.exclusive(self._patience), translated(self.path):
            if self._files.identity() is None:
                files.keep_log(self._files)  # of one that was deleted
                files.build(self._files, self.boot_id, self.clock, self._refill)
                files.install(self._files)
                self.created = True
