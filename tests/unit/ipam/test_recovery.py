"""A damaged database is told, kept, and replaced exactly once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipam import recovery
from ipam.errors import StoreBusy, StoreDamaged, StoreError
from ipam.files import Files
from ipam.ranges import IPAddress
from ipam.recovery import find_damage, recover
from ipam.store import Store, Transaction
from tests.unit.ipam.helpers import BOOT, NETWORK, HandClock, ip, open_at, owner
from tests.unit.ipam.processes import command, run_at_once
from tests.unit.ipam.worker import IN_KERNEL, add, refill

PAGE = 4096


def filled(data_dir: Path, count: int = 200) -> Path:
    with open_at(data_dir) as store, store.transaction() as tx:
        for number in range(count):
            tx.reserve(owner(number), ip("10.0.0.2") + number)
            tx.put_attachment(owner(number), '{"key": "%s"}' % ("value" * 8))
    return store.path


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def read_all(data_dir: Path) -> None:
    with open_at(data_dir) as store, store.read() as tx:
        tx.allocations()
        tx.attachments()


def garbage_everywhere(path: Path) -> None:
    """Every page but the first: whichever is read first is damaged."""
    pages = path.stat().st_size // PAGE - 1
    overwrite(path, PAGE, b"\x5a" * PAGE * pages)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: os.truncate(path, 0),
    "cut in the header": lambda path: os.truncate(path, 60),
    "cut in the middle": lambda path: os.truncate(path, path.stat().st_size // 2),
    "header": lambda path: overwrite(path, 0, os.urandom(100)),
    "first page": lambda path: overwrite(path, 100, b"\xff" * (PAGE - 100)),
    "other pages": garbage_everywhere,
    "another format": lambda path: path.write_text("<html>not a database</html>" * 50),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_kept_and_replaced(data_dir: Path, kind: str) -> None:
    path = filled(data_dir)
    DAMAGE[kind](path)
    before = path.read_bytes()

    with pytest.raises(StoreDamaged, match=r"podwire\.db is damaged") as caught:
        read_all(data_dir)
    assert (caught.value.code, caught.value.path) == (5, path)
    assert path.read_bytes() == before

    kept = recover(data_dir, refill, boot_id=BOOT)
    assert kept is not None
    assert kept.name.startswith("podwire.db.damaged-")
    assert kept.read_bytes() == before
    with open_at(data_dir) as store:
        assert not store.created
        with store.read() as tx:
            assert tuple(a.address for a in tx.allocations()) == IN_KERNEL
    assert recover(data_dir, refill, boot_id=BOOT) is None
    assert not (data_dir / "podwire.db.replacing").exists()


def test_what_can_be_read_is_kept(data_dir: Path) -> None:
    """One damaged page takes only the rows on it along; the kernel's word on addresses wins."""
    path = filled(data_dir, 400)
    with open_at(data_dir) as store, store.transaction() as tx:
        tx.release(owner(399))
        tx.put_network(NETWORK, "{}")
        tx.put_attachment(owner(0), '{"whole": true}')
        before = {a.address: a for a in tx.allocations()}
        leaf = page_with_allocation(store, len(before) // 2)
    overwrite(path, leaf * PAGE, b"\x5a" * PAGE)
    assert find_damage(data_dir) is not None

    def from_kernel(tx: Transaction) -> None:
        tx.reserve(owner("kernel"), ip("10.0.0.2"))
        tx.put_attachment(owner(0), '{"from its mark": true}')

    clock = HandClock(wall=2e9)
    assert recover(data_dir, from_kernel, boot_id=BOOT, clock=clock.clock) is not None
    with open_at(data_dir) as store, store.read() as tx:
        after = {a.address: a for a in tx.allocations()}
        assert after.pop(ip("10.0.0.2")).owner == owner("kernel")
        assert len(before) - 100 < len(after) < len(before)
        assert all(before[address] == allocation for address, allocation in after.items())
        assert tx.attachment(owner(0)) == '{"whole": true}'
        assert len(tx.attachments()) == 400
        assert tx.networks() == {NETWORK: "{}"}
        assert tx.freed_at(NETWORK, ip("10.0.0.2") + 399) is not None


def page_with_allocation(store: Store, row: int) -> int:
    """The number (from 0) of the page on which the n-th allocation is."""
    raw = sqlite3.connect(store.path)
    ((blob,),) = raw.execute("SELECT address FROM allocation LIMIT 1 OFFSET ?", (row,))
    raw.close()
    content = store.path.read_bytes()
    pages = [content[n : n + PAGE] for n in range(0, len(content), PAGE)]
    return next(n for n, page in enumerate(pages) if n and BOOT.encode() in page and blob in page)


def test_every_page_is_read_when_damage_is_looked_for(data_dir: Path) -> None:
    path = filled(data_dir)
    whole = path.read_bytes()
    for number in range(1, len(whole) // PAGE):
        overwrite(path, number * PAGE, b"\x5a" * PAGE)
        assert find_damage(data_dir) is not None, f"page {number}"
        path.write_bytes(whole)
    assert find_damage(data_dir) is None


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage_never_gives_anything_but_store_errors(
    data_dir: Path, data: st.DataObject
) -> None:
    for leftover in data_dir.glob("*") if data_dir.exists() else ():
        leftover.unlink()
    path = filled(data_dir, 50)
    offset = data.draw(st.integers(0, path.stat().st_size - 1))
    overwrite(path, offset, data.draw(st.binary(min_size=1, max_size=3000)))
    try:
        with open_at(data_dir) as store, store.transaction() as tx:
            tx.allocations()
            tx.attachments()
            tx.release(owner(3))
            tx.reserve(owner(999), ip("10.9.9.9"))
    except StoreError as error:
        assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE allocation SET address = x'040000000000'",
        "UPDATE allocation SET address = x'0500000000'",
        "UPDATE allocation SET container_id = CAST(x'ff' AS TEXT)",
        "UPDATE attachment SET record = CAST(x'ff' AS TEXT)",
        "DELETE FROM meta",
    ],
)
def test_wrong_content_is_damage_too(data_dir: Path, change: str) -> None:
    path = filled(data_dir, 1)
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA ignore_check_constraints = ON")
    raw.execute(change)
    raw.commit()
    raw.close()
    assert isinstance(find_damage(data_dir), StoreDamaged)
    with pytest.raises(StoreDamaged):
        read_all(data_dir)


def test_20_processes_find_the_damage_and_one_recovers(data_dir: Path) -> None:
    path = filled(data_dir)
    garbage_everywhere(path)
    outputs = run_at_once([command("add_recovering", data_dir, n) for n in range(20)])
    addresses = {ip(output.strip()) for output in outputs}
    assert len(addresses) == 20
    assert not addresses & set(IN_KERNEL)
    assert len([p for p in data_dir.glob("*damaged*") if p.suffix not in ("-wal", "-shm")]) >= 1
    assert len({p.name.split("-")[1] for p in data_dir.glob("*damaged*")}) == 1
    with open_at(data_dir) as store, store.read() as tx:
        assert tx.count(NETWORK) == 20 * 2 + len(IN_KERNEL)


def test_an_open_store_follows(data_dir: Path) -> None:
    """Damage hits a store that stays open, in a daemon say; it goes on with the new database."""
    filled(data_dir)
    with open_at(data_dir) as store:
        add(store, "x")
        garbage_everywhere(store.path)
        os.truncate(f"{store.path}-wal", 0)
        with store.read() as tx:
            tx.connection.execute("PRAGMA shrink_memory")
        with pytest.raises(StoreDamaged), store.transaction() as tx:
            tx.allocations()
        assert recover(data_dir, refill, boot_id=BOOT) is not None
        assert add(store, "y") == [ip("10.0.0.12"), ip("fd00::2")]
    with open_at(data_dir) as store, store.read() as tx:
        assert tx.addresses(owner("y")) == (ip("10.0.0.12"), ip("fd00::2"))


def test_a_refill_that_fails_leaves_the_damaged_one_in_place(data_dir: Path) -> None:
    path = filled(data_dir)
    garbage_everywhere(path)
    before = path.read_bytes()

    def fail(tx: Transaction) -> None:
        tx.reserve(owner(1), ip("10.0.0.5"))
        raise OSError("the kernel does not answer")

    with pytest.raises(OSError, match="the kernel does not answer"):
        recover(data_dir, fail, boot_id=BOOT)
    assert path.read_bytes() == before
    assert not list(data_dir.glob("*damaged*"))
    assert not list(data_dir.glob("*.new*"))


def test_recover_waits_for_a_running_transaction(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody may commit into a database that was just set aside."""
    filled(data_dir)
    monkeypatch.setattr(recovery, "TIMEOUT", 0.05)
    with open_at(data_dir) as store, store.transaction() as tx:
        tx.reserve(owner("late"), ip("10.0.9.9"))
        with pytest.raises(StoreBusy, match="locked"):
            recover(data_dir, refill, boot_id=BOOT)
    assert recover(data_dir, lambda _: None) is None


def test_a_sound_or_missing_database_is_left_alone(data_dir: Path) -> None:
    path = filled(data_dir)
    assert recover(data_dir, lambda _: None) is None
    path.unlink()
    assert recover(data_dir, refill, boot_id=BOOT) is None
    assert not path.exists()


def test_set_aside_twice_in_a_second_keeps_both(data_dir: Path) -> None:
    names: set[Path | None] = set()
    for turn in range(3):
        path = filled(data_dir, 1)
        path.write_text(f"damage {turn}")
        names.add(recover(data_dir, lambda _: None))
    assert len(names) == 3
    texts = {name.read_text() for name in names if name is not None}
    assert texts == {"damage 0", "damage 1", "damage 2"}


def addresses_of(store: Store) -> set[IPAddress]:
    with store.read() as tx:
        return {a.address for a in tx.allocations()}


def test_what_is_only_in_the_log_survives_a_killed_owner(data_dir: Path) -> None:
    """A copy of database and log, taken while both are open, is what kill -9 leaves."""
    with open_at(data_dir) as store:
        add(store, "x")
        copy = data_dir.parent / "copy"
        copy.mkdir()
        for name in ("podwire.db", "podwire.db-wal"):
            (copy / name).write_bytes((data_dir / name).read_bytes())
        expected = addresses_of(store)
    with open_at(copy) as store:
        assert addresses_of(store) == expected != set()
    assert Files(copy).database.exists()
