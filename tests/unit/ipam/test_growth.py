"""Allocation does the same work whether 100 or 30,000 addresses are held.

Work is counted in steps of SQLite's virtual machine, so the result is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ipam import pool as pools
from ipam.allocator import allocate
from ipam.config import IpamConf
from ipam.ranges import Range, encode
from ipam.store import Store, Transaction
from tests.unit.ipam.helpers import NETWORK, conf, ip, open_at, owner

FEW, MANY = 100, 30_000
SLACK = 20
"""Steps by which two runs may differ; one more per allocation would be 29,900."""


def steps(tx: Transaction, work: Callable[[], object]) -> int:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    tx.connection.set_progress_handler(step, 1)
    work()
    tx.connection.set_progress_handler(None, 1)
    return count


def filled(data_dir: Path, config: IpamConf, held: int, freed: int) -> Store:
    """A store in which so many addresses of each range are held, and so many were freed before.

    The rows are those that `allocate` and `release` leave, written at once to save time.
    """
    store = open_at(data_dir)
    with store.transaction() as tx:
        allocate(tx, config, owner("first"))
        for range_set in config.range_sets:
            write_rows(tx, range_set[0], held, freed)
    return store


def write_rows(tx: Transaction, range_: Range, held: int, freed: int) -> None:
    pool = pools.load(tx.connection, NETWORK, range_)
    assert pool.next is not None
    blobs = [encode(pool.next + number) for number in range(held + freed)]
    tx.connection.executemany(
        "INSERT INTO allocation VALUES (?, ?, ?, 'eth0', ?, 0, ?)",
        [(NETWORK, blob, f"c{n}", pool.id, tx.boot_id) for n, blob in enumerate(blobs[:held])],
    )
    tx.connection.executemany(
        "INSERT INTO freed (network, address, pool, freed_at, boot_id) VALUES (?, ?, ?, 0, ?)",
        [(NETWORK, blob, pool.id, tx.boot_id) for blob in blobs[held:]],
    )
    next_ = encode(pool.next + held + freed)
    following = next_ if next_ <= encode(pool.last) else None
    tx.connection.execute("UPDATE pool SET next = ? WHERE id = ?", (following, pool.id))


def test_the_counter_counts(data_dir: Path) -> None:
    with filled(data_dir, conf("10.0.0.0/16"), FEW, 0) as store, store.read() as tx:
        assert steps(tx, tx.allocations) > FEW


@pytest.mark.parametrize("freed_share", [0.0, 0.5])
def test_a_life_of_an_address(tmp_path: Path, freed_share: float) -> None:
    config = conf("10.0.0.0/8", "fd00::/64")
    wish = conf("10.0.0.0/8", "fd00::/64", requested="10.200.0.1")
    counts = []
    for number in (FEW, MANY):
        freed = int(number * freed_share)
        store = filled(tmp_path / str(number), config, number - freed, freed)
        with store, store.transaction() as tx:
            allocate(tx, config, owner("warm"))
            counts.append(
                [
                    steps(tx, lambda: allocate(tx, config, owner("new"))),
                    steps(tx, lambda: allocate(tx, config, owner("new"))),
                    steps(tx, lambda: tx.addresses(owner("new"))),
                    steps(tx, lambda: tx.release(owner("new"))),
                    steps(tx, lambda: allocate(tx, wish, owner("wishing"))),
                    steps(tx, lambda: tx.put_attachment(owner("wishing"), "{}")),
                    steps(tx, lambda: tx.release_address("podnet", ip("10.200.0.1"))),
                ]
            )
    for few, many in zip(*counts, strict=True):
        assert abs(few - many) <= SLACK, counts


def test_reuse_in_a_range_that_is_through(tmp_path: Path) -> None:
    counts = []
    for number in (FEW, MANY):
        start, end = ip("10.0.0.2"), ip("10.0.0.2") + number
        config = conf([{"subnet": "10.0.0.0/8", "rangeStart": str(start), "rangeEnd": str(end)}])
        store = filled(tmp_path / str(number), config, number - number // 2, number // 2)
        with store, store.transaction() as tx:
            allocate(tx, config, owner("reusing"))
            counts.append(steps(tx, partial(allocate, tx, config, owner("second"))))
    assert abs(counts[0] - counts[1]) <= SLACK, counts


def test_a_grown_range_passes_what_is_held_once(tmp_path: Path) -> None:
    with filled(tmp_path / "x", conf("10.0.0.0/16"), MANY, 0) as store:
        grown = conf("10.0.0.0/8")
        with store.transaction() as tx:
            first = steps(tx, lambda: allocate(tx, grown, owner("a")))
            second = steps(tx, lambda: allocate(tx, grown, owner("b")))
    assert first > MANY
    assert second < 1000
