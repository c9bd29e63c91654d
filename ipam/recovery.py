"""Recovery of a damaged database: it is set aside, never emptied, and a new one takes its place.

Everything happens under the exclusive lock, so of many processes that find the damage at once
exactly one replaces the database; the others see the new one. The marker file makes a kill in
between visible: the next call finds it and starts over.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from ipam import boot, files
from ipam.boot import SYSTEM, Clock
from ipam.errors import AddressTaken, NotAnAddress, StoreDamaged, damaged, from_os, translated
from ipam.files import Files, LockFile, Refill
from ipam.ranges import decode, encode
from ipam.transaction import Owner, Transaction

_Row = tuple[object, ...]

TIMEOUT = 60.0
"""Seconds to wait for running transactions, and for others that recover."""


def recover(
    data_dir: Path, refill: Refill, *, boot_id: str | None = None, clock: Clock = SYSTEM
) -> Path | None:
    """Replace the database if it is damaged; where the damaged one is now, None if it is sound.

    `refill` writes what is known to be in use (from the kernel, for example) into the new database,
    then what can be read of the damaged one is added. The new one comes into place complete or not
    at all. `refill` may not open the store itself.
    """
    this_boot = boot.read_boot_id() if boot_id is None else boot_id
    store = Files(data_dir.absolute())
    lock = LockFile(store.lock)
    try:
        with lock.exclusive(TIMEOUT):
            if find_damage(data_dir) is None:
                return None

            def refill_all(tx: Transaction) -> None:
                refill(tx)
                _copy_readable(store.database, tx)

            files.build(store, this_boot, clock, refill_all)
            return _replace(store)
    finally:
        lock.close()


def find_damage(data_dir: Path) -> StoreDamaged | None:
    """Read the whole database; what is wrong with it, None if it is sound (or missing)."""
    store = Files(data_dir.absolute())
    if store.marker.exists():
        return damaged(store.database, "the process that was replacing it was killed")
    try:
        if store.identity() is not None:
            _read_everything(store.database)
    except StoreDamaged as error:
        return error
    return None


def _read_everything(path: Path) -> None:
    # Closing a read-only connection writes nothing back, so the evidence stays as it is.
    with translated(path), closing(files.connect(path, mode="ro")) as connection:
        files.check_header(path, connection)
        findings = connection.execute("PRAGMA integrity_check(3)").fetchall()
        if findings != [("ok",)]:
            raise damaged(path, "; ".join(str(row[0]) for row in findings))
        _read_rows(connection, path)


def _read_rows(connection: sqlite3.Connection, path: Path) -> None:
    """Every value as its reader reads it: SQLite does not check text and addresses."""
    transaction = Transaction(connection, path, boot.boot_of(connection, path), SYSTEM)
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
        raise from_os(store.database, error) from error
    return kept


def _keep(store: Files) -> Path:
    """Give the damaged files another name; `podwire.db` itself stays until it is replaced."""
    kept = files.keep_log(store)
    with suppress(FileNotFoundError):
        os.link(store.database, kept)
    return kept


def _copy_readable(path: Path, tx: Transaction) -> None:
    """Copy the readable rows of this boot from the damaged database into the transaction's.

    The kernel knows the links of podwire's own pods, and nothing of addresses that were given to
    the pods of other main plugins, nor which addresses rest. So after the refill from the kernel,
    which wins where addresses differ, every row that can still be read is taken over. A row too
    many keeps an address that no pod uses; a row too few would give an address to a second pod.
    """
    if not path.is_file():
        return  # opening a pipe would wait for a writer
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(files.connect(path, "ro")) as damaged:
        _copy_table(damaged, tx, _ALLOCATIONS, "network, address", _take_allocation)
        _copy_table(damaged, tx, _FREED, "seq", _take_freed)
        _copy_table(damaged, tx, _ATTACHMENTS, "network, container_id, ifname", _take_attachment)
        _copy_table(damaged, tx, _NETWORKS, "network", _take_network)


_ALLOCATIONS = "SELECT network, container_id, ifname, address, created_at FROM allocation"
_FREED = "SELECT network, address, freed_at FROM freed"
_ATTACHMENTS = "SELECT network, container_id, ifname, record FROM attachment"
_NETWORKS = "SELECT network, record FROM network"


def _copy_table(
    damaged: sqlite3.Connection,
    tx: Transaction,
    select: str,
    key: str,
    take: Callable[[Transaction, _Row], None],
) -> None:
    """Read a table from its beginning up to the damage, then from its end down to it."""
    backwards = ", ".join(f"{column} DESC" for column in key.split(", "))
    for order in (key, backwards):
        with suppress(sqlite3.Error, UnicodeDecodeError):
            rows = damaged.execute(f"{select} WHERE boot_id = ? ORDER BY {order}", (tx.boot_id,))
            for row in rows:
                # Garbage in a row is no reason to leave the next one.
                with suppress(NotAnAddress, AddressTaken, TypeError, ValueError):
                    take(tx, row)


def _take_allocation(tx: Transaction, row: _Row) -> None:
    *names, blob, created_at = row
    tx.reserve(Owner(*map(_text, names)), decode(blob), created_at=_number(created_at))


def _take_freed(tx: Transaction, row: _Row) -> None:
    network, address, freed_at = _text(row[0]), decode(row[1]), _number(row[2])
    if tx.owner_of(network, address) is None:
        tx.connection.execute(
            "INSERT OR IGNORE INTO freed (network, address, pool, freed_at, boot_id)"
            " VALUES (?, ?, 0, ?, ?)",
            (network, encode(address), freed_at, tx.boot_id),
        )


def _take_attachment(tx: Transaction, row: _Row) -> None:
    # The kernel's mark has less in it than the record.
    tx.put_attachment(Owner(*map(_text, row[:3])), _json(row[3]))


def _take_network(tx: Transaction, row: _Row) -> None:
    network = _text(row[0])
    if tx.network(network) is None:
        tx.put_network(network, _json(row[1]))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError
    return value


def _json(value: object) -> str:
    """The text of a record, if it still is JSON."""
    text = _text(value)
    json.loads(text)
    return text
