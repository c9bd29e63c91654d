"""The main plugin's records, which it keeps in the same file as the allocations.

So an allocation and the record of its attachment are one commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ipam import faults
from ipam.clock import Clock
from ipam.errors import StoreError
from ipam.owner import Owner


class Records:
    """Reading and writing of records (JSON text) in one transaction."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        boot_id: str,
        clock: Clock,
        *,
        writable: bool = True,
    ) -> None:
        self.connection = connection
        self._writable = writable
        self.path = path
        self.boot_id = boot_id
        self.clock = clock

    def _rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        try:
            return self.connection.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise faults.of_query(self.path, error) from error

    def _changes(self, sql: str, *values: object) -> int:
        self.require_writable()
        try:
            return self.connection.execute(sql, values).rowcount
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise faults.of_query(self.path, error) from error

    def require_writable(self) -> None:
        """Raise StoreError in a transaction that only reads."""
        if not self._writable:
            raise StoreError(self.path, f"{self.path} is open for reading only here")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the block changed if it raises, and keep the transaction."""
        self._rows("SAVEPOINT step")
        try:
            yield
        except BaseException:
            # A full disk makes SQLite roll back everything itself; then there is no savepoint.
            with suppress(StoreError):
                self._rows("ROLLBACK TO step")
                self._rows("RELEASE step")
            raise
        self._rows("RELEASE step")

    def put_attachment(self, owner: Owner, record: str) -> None:
        """Keep a record (JSON text) for the owner, instead of the one it had."""
        self._changes(
            "INSERT OR REPLACE INTO attachment VALUES (?, ?, ?, ?, ?)",
            *key_of(owner), record, self.boot_id,
        )  # fmt: skip

    def attachment(self, owner: Owner) -> str | None:
        """The owner's record, None if it has none."""
        rows = self._rows(
            "SELECT record FROM attachment WHERE network = ? AND container_id = ? AND ifname = ?",
            *key_of(owner),
        )
        return self._text(rows[0][0]) if rows else None

    def attachments(self, network: str | None = None) -> list[tuple[Owner, str]]:
        """Owners and their records, of one network or of all, in order of the owners."""
        where, values = of_network(network)
        rows = self._rows(
            f"SELECT network, container_id, ifname, record FROM attachment {where}"  # noqa: S608
            " ORDER BY network, container_id, ifname",
            *values,
        )
        return [(self._owner(row), self._text(row[3])) for row in rows]

    def delete_attachment(self, owner: Owner) -> bool:
        """Forget the owner's record; whether there was one."""
        sql = "DELETE FROM attachment WHERE network = ? AND container_id = ? AND ifname = ?"
        return self._changes(sql, *key_of(owner)) > 0

    def has_attachments(self, network: str | None = None) -> bool:
        """Whether a network, or any, has an attachment."""
        where, values = of_network(network)
        return bool(self._rows(f"SELECT 1 FROM attachment {where} LIMIT 1", *values))  # noqa: S608

    def put_network(self, network: str, record: str) -> None:
        """Keep a record (JSON text) for a whole network, instead of the one it had."""
        self._changes(
            "INSERT OR REPLACE INTO network VALUES (?, ?, ?)", network, record, self.boot_id
        )

    def network(self, network: str) -> str | None:
        """The network's record, None if it has none."""
        rows = self._rows("SELECT record FROM network WHERE network = ?", network)
        return self._text(rows[0][0]) if rows else None

    def networks(self) -> dict[str, str]:
        """The records of all networks."""
        rows = self._rows("SELECT network, record FROM network")
        return {self._text(row[0]): self._text(row[1]) for row in rows}

    def delete_network(self, network: str) -> bool:
        """Forget the network's record; whether there was one."""
        return self._changes("DELETE FROM network WHERE network = ?", network) > 0

    def _owner(self, row: tuple[object, ...]) -> Owner:
        return Owner(*(self._text(value) for value in row[:3]))

    def _text(self, value: object) -> str:
        if not isinstance(value, str):
            raise faults.damaged(self.path, f"{value!r} is not text")
        return value

    def _number(self, value: object) -> float:
        if not isinstance(value, int | float):
            raise faults.damaged(self.path, f"{value!r} is not a number")
        return value


def key_of(owner: Owner) -> tuple[str, str, str]:
    """The owner as the columns of a key."""
    return owner.network, owner.container_id, owner.ifname


def of_network(network: str | None) -> tuple[str, tuple[str, ...]]:
    """The WHERE clause for one network, or for all, and its values."""
    return ("", ()) if network is None else ("WHERE network = ?", (network,))
