"""What can still be read of a damaged database, brought into its successor.

The kernel knows the links of podwire's own pods, and nothing of addresses that were given to
the pods of other main plugins, nor which addresses rest. So after the refill from the kernel,
which wins where addresses differ, every row that can still be read is taken over. A row too
many holds an address that nobody uses; a row too few would give an address to a second pod.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from ipam import files
from ipam.codec import NotAnAddress, decode, encode
from ipam.errors import AddressTaken
from ipam.owner import Owner
from ipam.transaction import Transaction

Row = tuple[object, ...]


def salvage(path: Path, tx: Transaction) -> None:
    """Copy the readable rows of this boot from the database at `path` into the transaction's."""
    if not path.is_file():
        return  # opening a pipe would wait for a writer
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(files.connect(path, "ro")) as damaged:
        _copy(damaged, tx, ALLOCATIONS, "network, address", _take_allocation)
        _copy(damaged, tx, FREED, "seq", _take_freed)
        _copy(damaged, tx, ATTACHMENTS, "network, container_id, ifname", _take_attachment)
        _copy(damaged, tx, NETWORKS, "network", _take_network)


ALLOCATIONS = "SELECT network, container_id, ifname, address, created_at FROM allocation"
FREED = "SELECT network, address, freed_at FROM freed"
ATTACHMENTS = "SELECT network, container_id, ifname, record FROM attachment"
NETWORKS = "SELECT network, record FROM network"


def _copy(
    damaged: sqlite3.Connection,
    tx: Transaction,
    select: str,
    key: str,
    take: Callable[[Transaction, Row], None],
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


def _take_allocation(tx: Transaction, row: Row) -> None:
    *names, blob, created_at = row
    tx.reserve(Owner(*map(_text, names)), decode(blob), created_at=_number(created_at))


def _take_freed(tx: Transaction, row: Row) -> None:
    network, address, freed_at = _text(row[0]), decode(row[1]), _number(row[2])
    if tx.owner_of(network, address) is None:
        tx.connection.execute(
            "INSERT OR IGNORE INTO freed (network, address, pool, freed_at, boot_id)"
            " VALUES (?, ?, 0, ?, ?)",
            (network, encode(address), freed_at, tx.boot_id),
        )


def _take_attachment(tx: Transaction, row: Row) -> None:
    # The kernel's mark tells less than the record that was kept.
    tx.put_attachment(Owner(*map(_text, row[:3])), _json(row[3]))


def _take_network(tx: Transaction, row: Row) -> None:
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
