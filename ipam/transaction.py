"""One transaction on the store: allocations and the main plugin's records, committed together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ipam.boot import Clock
from ipam.errors import AddressTaken, NotAnAddress, StoreError, damaged, from_query
from ipam.ranges import IPAddress, Range, decode, encode


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """An attachment: an interface of a container on a network."""

    network: str
    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"container {self.container_id} interface {self.ifname}"


@dataclass(frozen=True, slots=True)
class Allocation:
    """An allocated address; `created_at` is in seconds since 1970."""

    owner: Owner
    address: IPAddress
    created_at: float
    boot_id: str


_ELSEWHERE = """
SELECT 1 FROM allocation WHERE network < ?1 UNION ALL
SELECT 1 FROM allocation WHERE network > ?1 LIMIT 1
"""
# The networks are found one by one, by the index: a list of all would read all allocations.
_HOLDERS = """
WITH RECURSIVE other(name) AS (
    SELECT min(network) FROM allocation
    UNION ALL
    SELECT (SELECT min(network) FROM allocation WHERE network > name) FROM other
        WHERE name IS NOT NULL
)
SELECT network, container_id, ifname, record, address
    FROM other JOIN allocation ON network = name AND address IN ({})
    JOIN attachment USING (network, container_id, ifname)
    WHERE network <> ? ORDER BY network, address
"""


class Transaction:
    """What can be read and changed in one transaction; got from `Store.transaction` or `read`.

    Every method raises StoreError (StoreBusy, StoreDamaged) if the database fails. The records of
    attachments and networks are the main plugin's, JSON text.

    reused: addresses that it gave to an owner and that another had before.
    """

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
        self.reused: list[IPAddress] = []

    def _rows(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        try:
            return self.connection.execute(sql, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise from_query(self.path, error) from error

    def _changes(self, sql: str, *values: object) -> int:
        self.require_writable()
        try:
            return self.connection.execute(sql, values).rowcount
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise from_query(self.path, error) from error

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
            raise
        self._rows("RELEASE step")

    def put_attachment(self, owner: Owner, record: str) -> None:
        """Keep a record (JSON text) for the owner, instead of the one it had."""
        self._changes(
            "INSERT OR REPLACE INTO attachment VALUES (?, ?, ?, ?, ?)",
            *_key_of(owner), record, self.boot_id,
        )  # fmt: skip

    def attachment(self, owner: Owner) -> str | None:
        """The owner's record, None if it has none."""
        rows = self._rows(
            "SELECT record FROM attachment WHERE network = ? AND container_id = ? AND ifname = ?",
            *_key_of(owner),
        )
        return self._text(rows[0][0]) if rows else None

    def attachments(self, network: str | None = None) -> list[tuple[Owner, str]]:
        """Owners and their records, of one network or of all, in order of the owners."""
        where, values = _of_network(network)
        rows = self._rows(
            f"SELECT network, container_id, ifname, record FROM attachment {where}"  # noqa: S608
            " ORDER BY network, container_id, ifname",
            *values,
        )
        return [(self._owner(row), self._text(row[3])) for row in rows]

    def attachments_beside(self, owner: Owner) -> list[tuple[Owner, str]]:
        """The other attachments of the owner's container, as `attachments`."""
        rows = self._rows(
            "SELECT network, container_id, ifname, record FROM attachment WHERE container_id = ?"
            " AND (network, ifname) IS NOT (?, ?) ORDER BY network, ifname",
            owner.container_id, owner.network, owner.ifname,
        )  # fmt: skip
        return [(self._owner(row), self._text(row[3])) for row in rows]

    def delete_attachment(self, owner: Owner) -> bool:
        """Forget the owner's record; whether there was one."""
        sql = "DELETE FROM attachment WHERE network = ? AND container_id = ? AND ifname = ?"
        return self._changes(sql, *_key_of(owner)) > 0

    def has_attachments(self, network: str | None = None) -> bool:
        """Whether a network, or any, has an attachment."""
        where, values = _of_network(network)
        return bool(self._rows(f"SELECT 1 FROM attachment {where} LIMIT 1", *values))  # noqa: S608

    def is_recorded(self, text: str, besides: Owner | None = None) -> bool:
        """Whether a text stands in the record of any attachment, but for one."""
        sql = (
            "SELECT 1 FROM attachment WHERE instr(record, ?)"
            " AND (network, container_id, ifname) IS NOT (?, ?, ?) LIMIT 1"
        )
        return bool(self._rows(sql, text, *(_key_of(besides) if besides else (None,) * 3)))

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
            raise damaged(self.path, f"{value!r} is not text")
        return value

    def _number(self, value: object) -> float:
        if not isinstance(value, int | float):
            raise damaged(self.path, f"{value!r} is not a number")
        return value

    def knows(self, owner: Owner) -> bool:
        """Whether the owner has a record or an address."""
        mine = "WHERE network = ?1 AND container_id = ?2 AND ifname = ?3"
        sql = f"SELECT 1 FROM attachment {mine} UNION ALL SELECT 1 FROM allocation {mine} LIMIT 1"  # noqa: S608
        return bool(self._rows(sql, *_key_of(owner)))

    def addresses(self, owner: Owner) -> tuple[IPAddress, ...]:
        """The addresses of the owner, in order, IPv4 first."""
        rows = self._rows(
            "SELECT address FROM allocation"
            " WHERE network = ? AND container_id = ? AND ifname = ? ORDER BY address",
            *_key_of(owner),
        )
        return tuple(self._address(row[0]) for row in rows)

    def allocations(self, network: str | None = None) -> list[Allocation]:
        """Every allocation of a network, or of all, in order of network and address."""
        where, values = _of_network(network)
        return self._allocations(f"{where} ORDER BY network, address", *values)

    def oldest(self, network: str, range_: Range, limit: int) -> list[Allocation]:
        """The oldest allocations of a range."""
        return self._allocations(
            "WHERE network = ? AND address BETWEEN ? AND ? ORDER BY created_at, address LIMIT ?",
            network, encode(range_.start), encode(range_.end), limit,
        )  # fmt: skip

    def _allocations(self, rest: str, *values: object) -> list[Allocation]:
        rows = self._rows(
            f"SELECT network, container_id, ifname, address, created_at, boot_id FROM allocation {rest}",  # noqa: S608, E501
            *values,
        )
        return [
            Allocation(
                self._owner(row), self._address(row[3]), self._number(row[4]), self._text(row[5])
            )
            for row in rows
        ]

    def owner_of(self, network: str, address: IPAddress) -> Owner | None:
        """The owner of the address in the network, None where it is free."""
        rows = self._rows(
            "SELECT network, container_id, ifname FROM allocation"
            " WHERE network = ? AND address = ?",
            network, encode(address),
        )  # fmt: skip
        return self._owner(rows[0]) if rows else None

    def holders_elsewhere(
        self, network: str, addresses: Sequence[IPAddress]
    ) -> list[tuple[IPAddress, Owner, str]]:
        """Those of the addresses that attachments of other networks have: whose, the record."""
        if not self._rows(_ELSEWHERE, network):
            return []  # most nodes have one network
        places = ", ".join("?" * len(addresses))
        rows = self._rows(_HOLDERS.format(places), *map(encode, addresses), network)
        return [(self._address(row[4]), self._owner(row), self._text(row[3])) for row in rows]

    def reserve(self, owner: Owner, address: IPAddress, *, created_at: float | None = None) -> None:
        """Give the address to the owner; again is no error. AddressTaken if another owner has it.

        `created_at` (seconds since 1970) is now unless given.
        """
        holder = self.owner_of(owner.network, address)
        if holder == owner:
            return
        if holder is not None:
            raise AddressTaken(
                f"address {address} is allocated to {holder}", f"network {owner.network}"
            )
        self.require_writable()
        tags = self._rows(
            "DELETE FROM freed WHERE network = ? AND address = ? RETURNING pool",
            owner.network, encode(address),
        )  # fmt: skip
        if tags:
            self.reused.append(address)
        self.insert(owner, address, tags[0][0] if tags else 0, created_at)

    def put_off(self, network: str, address: IPAddress) -> None:
        """Put an address that was just given behind all that are free: a pod has it already."""
        self._free(network, address)
        if address in self.reused:
            self.reused.remove(address)

    def adopt(self, owner: Owner, address: IPAddress) -> None:
        """Give the address to a pod that has it already, whoever it was allocated to here."""
        tags = [
            row
            for table in ("freed", "allocation")
            for row in self._rows(
                f"DELETE FROM {table} WHERE network = ? AND address = ? RETURNING pool",  # noqa: S608
                owner.network, encode(address),
            )
        ]  # fmt: skip
        if address in self.reused:  # whoever sends to it sends to this owner
            self.reused.remove(address)
        self.insert(owner, address, tags[0][0] if tags else 0)

    def insert(
        self, owner: Owner, address: IPAddress, pool: object, created_at: float | None = None
    ) -> None:
        """Give the owner an address; the schema refuses one that is allocated already."""
        self._changes(
            "INSERT INTO allocation VALUES (?, ?, ?, ?, ?, ?, ?)",
            owner.network, encode(address), owner.container_id, owner.ifname, pool,
            self.clock.wall() if created_at is None else created_at,
            self.boot_id,
        )  # fmt: skip

    def release(self, owner: Owner) -> tuple[IPAddress, ...]:
        """Take every address of the owner back into the queue; returns them, empty if none."""
        addresses = self.addresses(owner)
        for address in addresses:
            self._free(owner.network, address)
        return addresses

    def release_address(self, network: str, address: IPAddress) -> Owner | None:
        """Take one address back into the queue; its owner until now, None where it was free."""
        owner = self.owner_of(network, address)
        if owner is not None:
            self._free(network, address)
        return owner

    def _free(self, network: str, address: IPAddress) -> None:
        key = (network, encode(address))
        self._changes(
            "INSERT INTO freed (network, address, pool, freed_at, boot_id)"
            " SELECT network, address, pool, ?, ? FROM allocation"
            " WHERE network = ? AND address = ?",
            self.clock.uptime(), self.boot_id, *key,
        )  # fmt: skip
        self._changes("DELETE FROM allocation WHERE network = ? AND address = ?", *key)

    def count(self, network: str) -> int:
        """How many addresses of the network are allocated."""
        return self._count("SELECT count(*) FROM allocation WHERE network = ?", network)

    def count_in(self, network: str, range_: Range) -> int:
        """How many addresses of the range are allocated."""
        return self._count(
            "SELECT count(*) FROM allocation WHERE network = ? AND address BETWEEN ? AND ?",
            network, encode(range_.start), encode(range_.end),
        )  # fmt: skip

    def _count(self, sql: str, *values: object) -> int:
        return int(self._number(self._rows(sql, *values)[0][0]))

    def freed_at(self, network: str, address: IPAddress) -> tuple[float, str] | None:
        """When (seconds since boot) and in which boot the address was freed; None if it was not."""
        rows = self._rows(
            "SELECT freed_at, boot_id FROM freed WHERE network = ? AND address = ?",
            network, encode(address),
        )  # fmt: skip
        return (self._number(rows[0][0]), self._text(rows[0][1])) if rows else None

    def _address(self, value: object) -> IPAddress:
        try:
            return decode(value)
        except NotAnAddress as error:
            raise from_query(self.path, error) from error


def _key_of(owner: Owner) -> tuple[str, str, str]:
    """The owner as the columns of a key."""
    return owner.network, owner.container_id, owner.ifname


def _of_network(network: str | None) -> tuple[str, tuple[str, ...]]:
    """The WHERE clause for one network, or for all, and its values."""
    return ("", ()) if network is None else ("WHERE network = ?", (network,))
