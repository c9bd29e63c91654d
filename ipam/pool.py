"""The state of one range of a network: its cursor, and its queue of freed addresses.

No function here does work that grows with the number of allocations. An address that the cursor
finds in use or freed is passed for good and from then on belongs to this pool, so it is skipped
once at most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from ipam.ranges import IPAddress, Range, decode, encode

NEVER_HELD = ""
"""The boot ID of queued addresses that no pod had: they need no rest."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A range's row; `next` is None when every address was handed out once."""

    id: int
    network: str
    last: IPAddress
    next: IPAddress | None
    freed: int


@dataclass(frozen=True, slots=True)
class Freed:
    """An address in the queue; `freed_at` is in seconds since boot `boot_id`."""

    seq: int
    address: IPAddress
    freed_at: float
    boot_id: str


def load(connection: sqlite3.Connection, network: str, range_: Range) -> Pool:
    """The pool of a range of a network, created if it is new."""
    key = (network, encode(range_.start), encode(range_.end))
    query = "SELECT id, next, freed FROM pool WHERE network = ? AND first = ? AND last = ?"
    row = connection.execute(query, key).fetchone()
    if row is None:
        connection.execute(
            "INSERT INTO pool (network, first, last, next) VALUES (?, ?, ?, ?)", (*key, key[1])
        )
        row = connection.execute(query, key).fetchone()
    id_, next_, freed = row
    return Pool(id_, network, range_.end, None if next_ is None else decode(next_), freed)


def take_next(
    connection: sqlite3.Connection, pool: Pool, gateways: frozenset[IPAddress]
) -> IPAddress | None:
    """The next address that was never handed out, and move the cursor past it; None at the end.

    A gateway on the way is put into the queue, so that it is not lost when it stops being one.
    """
    if pool.next is None:
        return None
    found, passed = _first_unused(connection, pool, pool.next, gateways)
    if found != pool.next:
        _adopt(connection, pool, pool.next, passed)
        for gateway in gateways:
            if encode(pool.next) <= encode(gateway) <= encode(passed):
                _park(connection, pool, gateway)
    following = None if passed == pool.last else encode(passed + 1)
    connection.execute("UPDATE pool SET next = ? WHERE id = ?", (following, pool.id))
    return found


def _first_unused(
    connection: sqlite3.Connection,
    pool: Pool,
    start: IPAddress,
    gateways: frozenset[IPAddress],
) -> tuple[IPAddress | None, IPAddress]:
    """The first unused address from `start` on, and the last address that the search passed."""
    known = _known_addresses(connection, pool, start)
    taken = next(known, None)
    candidate = start
    while True:
        if candidate == taken:
            taken = next(known, None)
        elif candidate not in gateways:
            return candidate, candidate
        if candidate == pool.last:
            return None, candidate
        candidate += 1


def _known_addresses(
    connection: sqlite3.Connection, pool: Pool, start: IPAddress
) -> Iterator[IPAddress]:
    """Held and freed addresses from `start` on, in order; read only as far as they are used."""
    key = {"network": pool.network, "start": encode(start), "last": encode(pool.last)}
    rows = connection.execute(
        "SELECT address FROM allocation"
        " WHERE network = :network AND address BETWEEN :start AND :last"
        " UNION ALL SELECT address FROM freed"
        " WHERE network = :network AND address BETWEEN :start AND :last ORDER BY address",
        key,
    )
    return (decode(blob) for (blob,) in rows)


def _adopt(connection: sqlite3.Connection, pool: Pool, start: IPAddress, passed: IPAddress) -> None:
    """Make the addresses that the cursor passed this pool's."""
    key = (pool.id, pool.network, encode(start), encode(passed))
    for table in ("allocation", "freed"):
        connection.execute(
            f"UPDATE {table} SET pool = ? WHERE network = ? AND address BETWEEN ? AND ?",  # noqa: S608
            key,
        )


def _park(connection: sqlite3.Connection, pool: Pool, gateway: IPAddress) -> None:
    """Queue a gateway before everything else, as it never needs rest."""
    connection.execute(
        "INSERT INTO freed (seq, network, address, pool, freed_at, boot_id)"
        " SELECT min(0, coalesce((SELECT min(seq) FROM freed), 0)) - 1, ?1, ?2, ?3, 0, ?4"
        " WHERE NOT EXISTS (SELECT 1 FROM allocation WHERE network = ?1 AND address = ?2)"
        " AND NOT EXISTS (SELECT 1 FROM freed WHERE network = ?1 AND address = ?2)",
        (pool.network, encode(gateway), pool.id, NEVER_HELD),
    )


def queue_head(
    connection: sqlite3.Connection, pool: Pool, gateways: frozenset[IPAddress]
) -> Freed | None:
    """The longest-freed address of the pool that is no gateway."""
    rows = connection.execute(
        "SELECT seq, address, freed_at, boot_id FROM freed WHERE pool = ? ORDER BY seq", (pool.id,)
    )
    for seq, blob, freed_at, boot_id in rows:
        address = decode(blob)
        if address not in gateways:
            return Freed(seq, address, freed_at, boot_id)
    return None


def count_queue(connection: sqlite3.Connection, pool: Pool, gateways: frozenset[IPAddress]) -> int:
    """How many addresses of the pool wait, without gateways."""
    query = "SELECT count(*) FROM freed WHERE network = ? AND address = ? AND pool = ?"
    parked: list[int] = [
        connection.execute(query, (pool.network, encode(gateway), pool.id)).fetchone()[0]
        for gateway in gateways
    ]
    return pool.freed - sum(parked)


def take_over_freed(connection: sqlite3.Connection, pool: Pool, range_: Range) -> bool:
    """Take freed addresses of the range from pools that overlap it; whether there were any.

    Needed only when a network's ranges change back and forth.
    """
    changed = connection.execute(
        "UPDATE freed SET pool = ? WHERE network = ? AND address BETWEEN ? AND ? AND pool <> ?",
        (pool.id, pool.network, encode(range_.start), encode(range_.end), pool.id),
    )
    return changed.rowcount > 0
