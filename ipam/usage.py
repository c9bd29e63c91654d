"""How many of each network's addresses are in use, for metrics.

Counted by the database without reading a row into Python; nothing is enumerated.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ipam.errors import translated
from ipam.ranges import decode
from ipam.transaction import Transaction

_VERSION = {5: 4, 17: 6}
"""IP version by the length of an encoded address (ipam.ranges)."""
_Key = tuple[str, int]

# By family in columns, for rows are in order of the network, and sorting them costs more than all.
_ALLOCATED = """
SELECT network, sum(length(address) = 5), sum(length(address) = 17) FROM allocation GROUP BY 1
"""
# How long those of an earlier boot have rested is not known; parked gateways never do.
_FREED = """
SELECT network, length(address), sum(boot_id <> ''), sum(boot_id = ''),
    min(CASE boot_id WHEN ? THEN freed_at END)
FROM freed GROUP BY 1, 2
"""
_POOLS = "SELECT network, first, last FROM pool"


@dataclass(frozen=True, slots=True)
class Usage:
    """One family of one network.

    allocated: addresses that pods have. resting: those that were freed and wait in the queue, the
    first of them for oldest seconds (None where none was freed in this boot). size: what pods can
    get of the ranges that were used so far, 0 where none was.
    """

    network: str
    version: int
    allocated: int = 0
    resting: int = 0
    oldest: float | None = None
    size: int = 0


def read_usage(tx: Transaction) -> tuple[Usage, ...]:
    """All networks that the store knows, in order. Raises StoreError."""
    with translated(tx.path):
        allocated = _allocated(tx.connection)
        freed = {_key(*row[:2]): row[2:] for row in tx.connection.execute(_FREED, (tx.boot_id,))}
        sizes = _sizes(tx.connection)
    now, found = tx.clock.uptime(), []
    for key in sorted({*allocated, *freed, *sizes}):
        resting, parked, first = freed.get(key, (0, 0, None))
        oldest = None if first is None else max(0.0, now - first)
        size = max(0, sizes.get(key, 0) - parked)
        found.append(Usage(*key, allocated.get(key, 0), resting, oldest, size))
    return tuple(found)


def _key(network: str, length: int) -> _Key:
    return network, _VERSION[length]


def _allocated(connection: sqlite3.Connection) -> Mapping[_Key, int]:
    rows = connection.execute(_ALLOCATED)
    counts = {(name, v): n for name, *both in rows for v, n in zip((4, 6), both, strict=True)}
    return {key: count for key, count in counts.items() if count}


def _sizes(connection: sqlite3.Connection) -> Mapping[_Key, int]:
    """How many addresses are in any of a network's ranges, which may overlap."""
    ranges: dict[_Key, list[tuple[int, int]]] = {}
    for network, first, last in connection.execute(_POOLS):
        start, end = decode(first), decode(last)
        ranges.setdefault((network, start.version), []).append((int(start), int(end)))
    return {key: _union(spans) for key, spans in ranges.items()}


def _union(spans: Iterable[tuple[int, int]]) -> int:
    total, end = 0, -1
    for first, last in sorted(spans):
        total += max(0, last - max(first, end + 1) + 1)
        end = max(end, last)
    return total
