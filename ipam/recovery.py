"""Recovery of a damaged database: it is set aside, never emptied, and a new one takes its place.

Everything happens under the exclusive lock, so of many processes that find the damage at once
exactly one replaces the database; the others see the new one. The marker file makes a kill in
between visible: whoever comes next finds it and starts over.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from ipam import boot, faults, files
from ipam.clock import SYSTEM, Clock
from ipam.errors import StoreDamaged
from ipam.files import Files, Refill
from ipam.lockfile import LockFile
from ipam.salvage import salvage
from ipam.transaction import Transaction

TIMEOUT = 60.0
"""Seconds to wait for running transactions, and for others that recover."""


def recover(
    data_dir: Path, refill: Refill, *, boot_id: str | None = None, clock: Clock = SYSTEM
) -> Path | None:
    """Replace the database if it is damaged; where the damaged one is now, None if it is sound.

    `refill` writes what is known to be in use (from the kernel, say) into the new database,
    then what the damaged one still tells is added. The new one comes into place complete or not
    at all. `refill` may not open the store itself.
    """
    this_boot = boot.read_boot_id() if boot_id is None else boot_id
    store = Files(data_dir.absolute())
    lock = LockFile(store.lock)
    try:
        with lock.exclusive(TIMEOUT):
            if find_damage(data_dir, boot_id=this_boot, clock=clock) is None:
                return None
            files.build(store, this_boot, clock, lambda tx: _refill(tx, refill, store.database))
            return _replace(store)
    finally:
        lock.close()


def _refill(tx: Transaction, refill: Refill, damaged: Path) -> None:
    refill(tx)
    salvage(damaged, tx)


def set_aside(data_dir: Path) -> Path | None:
    """Like `recover`, with nothing but what the damaged database still tells."""
    return recover(data_dir, lambda _: None)


def find_damage(data_dir: Path, *, boot_id: str = "", clock: Clock = SYSTEM) -> StoreDamaged | None:
    """Read the whole database; what is wrong with it, None if it is sound (or missing)."""
    store = Files(data_dir.absolute())
    if store.marker.exists():
        return faults.damaged(store.database, "whoever was replacing it was killed")
    try:
        if store.identity() is not None:
            _read_everything(store.database, boot_id, clock)
    except StoreDamaged as error:
        return error
    return None


def _read_everything(path: Path, boot_id: str, clock: Clock) -> None:
    # Closing a read-only connection writes nothing back, so the evidence stays as it is.
    with faults.translated(path), closing(files.connect(path, mode="ro")) as connection:
        files.check_header(path, connection)
        findings = connection.execute("PRAGMA integrity_check(3)").fetchall()
        if findings != [("ok",)]:
            raise faults.damaged(path, "; ".join(str(row[0]) for row in findings))
        _read_rows(connection, path, boot_id, clock)


def _read_rows(connection: sqlite3.Connection, path: Path, boot_id: str, clock: Clock) -> None:
    """Every value as its reader reads it: SQLite does not check text and addresses."""
    boot.boot_of(connection, path)
    transaction = Transaction(connection, path, boot_id, clock)
    transaction.allocations()
    transaction.attachments()
    transaction.networks()
    for sql in ("SELECT * FROM pool", "SELECT * FROM freed"):
        connection.execute(sql).fetchall()


def _replace(store: Files) -> Path:
    """Set the damaged database aside and put the new one into place."""
    try:
        store.marker.touch(mode=0o600)
        files.sync_directory(store.data_dir)
        kept = _keep(store)
        files.install(store)
        store.marker.unlink()
        files.sync_directory(store.data_dir)
    except OSError as error:
        raise faults.of_os(store.database, error) from error
    return kept


def _keep(store: Files) -> Path:
    """Give the damaged files another name; `podwire.db` itself stays until it is replaced."""
    kept = files.unused_name(store)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(f"{store.database}{suffix}", f"{kept}{suffix}")
    with suppress(FileNotFoundError):
        os.link(store.database, kept)
    return kept
