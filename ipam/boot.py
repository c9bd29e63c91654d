"""The boot: rows of an earlier one are stale, because no pod outlives it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ipam import faults
from ipam.errors import IO_FAILURE, IpamError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""A random ID that the kernel makes at boot (proc(5))."""


@dataclass(frozen=True, slots=True)
class Purged:
    """How many stale rows the first open in a new boot took away."""

    allocations: int = 0
    attachments: int = 0


def read_boot_id() -> str:
    """The ID of this boot; IpamError with code 5 if /proc does not tell."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot read {BOOT_ID}", str(error)) from error


def purge(connection: sqlite3.Connection, path: Path, boot_id: str) -> Purged:
    """Free what earlier boots held, in one transaction, once per boot."""
    if boot_of(connection, path) == boot_id:
        return Purged()
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have purged between the look and the lock.
        purged = _purge(connection, boot_id) if boot_of(connection, path) != boot_id else Purged()
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return purged


def boot_of(connection: sqlite3.Connection, path: Path) -> str:
    """The boot that used the database last; StoreDamaged if it does not say."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'boot_id'").fetchone()
    if row is None:
        raise faults.damaged(path, "the boot ID is missing")
    return str(row[0])


def _purge(connection: sqlite3.Connection, boot_id: str) -> Purged:
    """Freed addresses keep the boot that held them, so they need no rest in this one."""
    connection.execute(
        "INSERT INTO freed (network, address, pool, freed_at, boot_id)"
        " SELECT network, address, pool, 0, boot_id FROM allocation WHERE boot_id <> ?"
        " ORDER BY network, address",
        (boot_id,),
    )
    allocations = connection.execute("DELETE FROM allocation WHERE boot_id <> ?", (boot_id,))
    attachments = connection.execute("DELETE FROM attachment WHERE boot_id <> ?", (boot_id,))
    connection.execute("DELETE FROM network WHERE boot_id <> ?", (boot_id,))
    connection.execute("UPDATE meta SET value = ? WHERE key = 'boot_id'", (boot_id,))
    return Purged(allocations.rowcount, attachments.rowcount)
