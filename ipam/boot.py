"""This boot: its ID, the clocks that count in it, and the end of what an earlier one left.

Rows of an earlier boot are stale, because no pod outlives it. Rest periods are measured in seconds
since boot, which no clock change can move; the wall clock only dates allocations for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ipam.errors import IO_FAILURE, IpamError, damaged

if TYPE_CHECKING:
    import sqlite3

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""A random ID that the kernel makes at boot (proc(5))."""


def _seconds_since_boot() -> float:
    # Unlike CLOCK_MONOTONIC it counts the time of suspends (clock_gettime(2)).
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Clock:
    """`wall` gives seconds since 1970, `uptime` seconds since boot."""

    wall: Callable[[], float] = time.time
    uptime: Callable[[], float] = _seconds_since_boot


SYSTEM = Clock()


def render_duration(seconds: float) -> str:
    """A duration in its two largest units: `3d 4h`, `12m 5s`, `0s`."""
    rest = max(0, int(seconds))
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        amount, rest = divmod(rest, length)
        if amount:
            parts.append(f"{amount}{unit}")
    return " ".join(parts[:2]) or "0s"


@dataclass(frozen=True, slots=True)
class Purged:
    """How many stale rows the first open in a new boot took away."""

    allocations: int = 0
    attachments: int = 0


def read_boot_id() -> str:
    """The ID of this boot; IpamError with code 5 where /proc cannot be read."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError as error:
        raise IpamError(IO_FAILURE, f"cannot read {BOOT_ID}", str(error)) from error


def purge(connection: sqlite3.Connection, path: Path, boot_id: str) -> Purged:
    """Free the addresses of earlier boots, in one transaction, once per boot."""
    if boot_of(connection, path) == boot_id:
        return Purged()
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have purged before we had the lock.
        purged = _purge(connection, boot_id) if boot_of(connection, path) != boot_id else Purged()
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return purged


def boot_of(connection: sqlite3.Connection, path: Path) -> str:
    """The boot that used the database last; StoreDamaged where that is missing."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'boot_id'").fetchone()
    if row is None:
        raise damaged(path, "the boot ID is missing")
    return str(row[0])


def _purge(connection: sqlite3.Connection, boot_id: str) -> Purged:
    """Freed addresses keep the boot of their allocation, so they need no rest in this one."""
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
