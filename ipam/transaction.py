"""One transaction on the store: allocations and the main plugin's records, committed together."""

from __future__ import annotations

from ipam import faults
from ipam.codec import NotAnAddress, decode, encode
from ipam.errors import AddressTaken
from ipam.owner import Allocation, Owner
from ipam.ranges import IPAddress, Range
from ipam.records import Records, key_of, of_network

__all__ = ["Allocation", "Owner", "Transaction"]


class Transaction(Records):
    """What can be read and changed in one transaction; got from `Store.transaction` or `read`.

    Every method raises StoreError (StoreBusy, StoreDamaged) if the database fails.
    """

    def knows(self, owner: Owner) -> bool:
        """Whether the owner has a record or holds an address."""
        mine = "WHERE network = ?1 AND container_id = ?2 AND ifname = ?3"
        sql = f"SELECT 1 FROM attachment {mine} UNION ALL SELECT 1 FROM allocation {mine} LIMIT 1"  # noqa: S608
        return bool(self._rows(sql, *key_of(owner)))

    def addresses(self, owner: Owner) -> tuple[IPAddress, ...]:
        """The addresses that the owner holds, in order, IPv4 first."""
        rows = self._rows(
            "SELECT address FROM allocation"
            " WHERE network = ? AND container_id = ? AND ifname = ? ORDER BY address",
            *key_of(owner),
        )
        return tuple(self._address(row[0]) for row in rows)

    def allocations(self, network: str | None = None) -> list[Allocation]:
        """Every allocation of a network, or of all, in order of network and address."""
        where, values = of_network(network)
        return self._allocations(f"{where} ORDER BY network, address", *values)

    def oldest(self, network: str, range_: Range, limit: int) -> list[Allocation]:
        """The longest-held addresses of a range."""
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
        """Who holds the address in the network, None if nobody does."""
        rows = self._rows(
            "SELECT network, container_id, ifname FROM allocation"
            " WHERE network = ? AND address = ?",
            network, encode(address),
        )  # fmt: skip
        return self._owner(rows[0]) if rows else None

    def reserve(
        self, owner: Owner, address: IPAddress, *, pool: int = 0, created_at: float | None = None
    ) -> None:
        """Give the address to the owner; again is no error. AddressTaken if another holds it.

        `created_at` (seconds since 1970) is now unless given.
        """
        holder = self.owner_of(owner.network, address)
        if holder == owner:
            return
        if holder is not None:
            raise AddressTaken(f"address {address} is held by {holder}", f"network {owner.network}")
        self.require_writable()
        tags = self._rows(
            "DELETE FROM freed WHERE network = ? AND address = ? RETURNING pool",
            owner.network, encode(address),
        )  # fmt: skip
        self.insert(owner, address, tags[0][0] if tags else pool, created_at)

    def insert(
        self, owner: Owner, address: IPAddress, pool: object, created_at: float | None = None
    ) -> None:
        """Give the owner an address that is neither held nor freed; the schema sees to that."""
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
        """Take one address back into the queue; who held it, None if nobody did."""
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
        """How many addresses of the network are held."""
        return self._count("SELECT count(*) FROM allocation WHERE network = ?", network)

    def count_in(self, network: str, range_: Range) -> int:
        """How many addresses of the range are held."""
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
            raise faults.of_query(self.path, error) from error
