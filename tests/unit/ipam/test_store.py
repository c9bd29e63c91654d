"""The store: what a transaction keeps, what a boot takes away, and which files it leaves."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from ipam import sqlite_schema as schema
from ipam.boot import BOOT_ID, Purged
from ipam.errors import AddressTaken, StoreDamaged, StoreError
from ipam.files import Files, connect
from ipam.recovery import find_damage
from ipam.store import Allocation, Store, Transaction, open_store
from tests.unit.ipam.helpers import BOOT, NETWORK, HandClock, ip, open_at, owner


def addresses(store: Store) -> set[str]:
    with store.read() as tx:
        return {str(allocation.address) for allocation in tx.allocations()}


def test_a_new_store_is_for_its_owner_alone(data_dir: Path, store: Store) -> None:
    assert store.created
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in data_dir.iterdir()}
    assert modes == dict.fromkeys(
        ["podwire.db", "podwire.db-shm", "podwire.db-wal", "podwire.db.lock"], 0o600
    )


def test_durability_settings(data_dir: Path, store: Store) -> None:
    with store.transaction() as tx:
        assert tx.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert tx.connection.execute("PRAGMA synchronous").fetchone() == (1,)
    raw = sqlite3.connect(Files(data_dir).database)
    assert schema.read_header(raw) == (schema.APPLICATION_ID, schema.VERSION)
    raw.close()


def test_records_and_allocations_are_one_commit(store: Store, data_dir: Path) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
        tx.reserve(owner(1), ip("fd00::5"))
        tx.put_attachment(owner(1), "{}")
        tx.put_attachment(owner(1), '{"a": 1}')
        tx.put_network(NETWORK, "{}")
    with open_at(data_dir) as again, again.read() as tx:
        assert not again.created
        assert tx.addresses(owner(1)) == (ip("10.0.0.5"), ip("fd00::5"))
        assert tx.attachments(NETWORK) == [(owner(1), '{"a": 1}')] == tx.attachments()
        assert (tx.attachments("other"), tx.attachment(owner(2))) == ([], None)
        assert (tx.networks(), tx.network("other")) == ({NETWORK: "{}"}, None)
        assert (tx.count(NETWORK), tx.count("other")) == (2, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_leaves_the_block_undoes_it(store: Store, error: type[BaseException]) -> None:
    def fail(tx: Transaction) -> None:
        tx.reserve(owner(1), ip("10.0.0.5"))
        tx.put_attachment(owner(1), "{}")
        raise error

    with pytest.raises(error), store.transaction() as tx:
        fail(tx)
    with store.read() as tx:
        assert (tx.allocations(), tx.attachments()) == ([], [])


def test_an_address_has_one_owner_per_network(store: Store) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
        tx.reserve(owner(1), ip("10.0.0.5"))
        tx.reserve(owner(1, "other"), ip("10.0.0.5"))
        with pytest.raises(AddressTaken, match="container1") as caught:
            tx.reserve(owner(2), ip("10.0.0.5"))
        assert caught.value.code == 105
        assert tx.owner_of(NETWORK, ip("10.0.0.5")) == owner(1)
        assert tx.owner_of(NETWORK, ip("10.0.0.6")) is None
    with (
        pytest.raises(sqlite3.IntegrityError, match="UNIQUE"),
        store.transaction() as tx,
    ):
        tx.connection.execute(
            "INSERT INTO allocation SELECT network, address, 'x', 'x', 0, 0, 'x' FROM allocation"
        )


def test_release_returns_what_it_freed(store: Store) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("fd00::5"))
        tx.reserve(owner(1), ip("10.0.0.5"))
        tx.put_attachment(owner(1), "{}")
        assert tx.release(owner(1)) == (ip("10.0.0.5"), ip("fd00::5"))
        assert tx.release(owner(1)) == ()
        assert tx.release_address(NETWORK, ip("10.0.0.5")) is None
        assert (tx.delete_attachment(owner(1)), tx.delete_attachment(owner(1))) == (True, False)
        tx.reserve(owner(2), ip("10.0.0.5"))
        assert tx.release_address(NETWORK, ip("10.0.0.5")) == owner(2)


def test_an_allocation_says_when(store: Store, clock: HandClock) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
        assert tx.allocations() == [Allocation(owner(1), ip("10.0.0.5"), clock.wall, BOOT)]


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(StoreError, match="reading only"), store.read() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
    assert addresses(store) == {"10.0.0.5"}


def test_a_savepoint_undoes_its_block_alone(store: Store) -> None:
    def fail(tx: Transaction) -> None:
        with tx.savepoint():
            tx.reserve(owner(2), ip("10.0.0.6"))
            raise LookupError

    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
        with pytest.raises(LookupError):
            fail(tx)
    assert addresses(store) == {"10.0.0.5"}


def test_a_boot_frees_what_the_earlier_one_held(data_dir: Path, store: Store) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
        tx.reserve(owner(2), ip("10.0.0.6"))
        tx.put_attachment(owner(1), "{}")
        tx.put_network(NETWORK, "{}")
    store.close()
    with open_at(data_dir, boot_id="boot-2") as later:
        assert later.purged == Purged(allocations=2, attachments=1)
        with later.transaction() as tx:
            assert (tx.allocations(), tx.attachments(), tx.networks()) == ([], [], {})
            tx.reserve(owner(3), ip("10.0.0.5"))
    with open_at(data_dir, boot_id="boot-2") as again:
        assert again.purged == Purged()
        assert addresses(again) == {"10.0.0.5"}


def test_the_boot_id_is_the_kernels(data_dir: Path) -> None:
    with open_store(data_dir) as store:
        assert store.boot_id == BOOT_ID.read_text().strip()


def change(data_dir: Path, sql: str) -> None:
    raw = sqlite3.connect(Files(data_dir).database)
    raw.execute(sql)
    raw.commit()
    raw.close()


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("PRAGMA user_version = 99", "written by a newer podwire"),
        ("PRAGMA application_id = 7", "is not podwire's database"),
        ("PRAGMA user_version = 0", "is not podwire's database"),
    ],
)
def test_databases_of_others_are_refused_and_left_alone(
    data_dir: Path, store: Store, sql: str, message: str
) -> None:
    store.close()
    change(data_dir, sql)
    before = Files(data_dir).database.read_bytes()
    with pytest.raises(StoreError, match=message) as caught:
        open_at(data_dir)
    assert not isinstance(caught.value, StoreDamaged)
    assert caught.value.code == 5
    assert Files(data_dir).database.read_bytes() == before


@pytest.mark.parametrize("table", ["meta", "allocation", "attachment", "freed", "pool"])
def test_a_lost_table_is_damage(data_dir: Path, store: Store, table: str) -> None:
    store.close()
    change(data_dir, f"DROP TABLE {table}")
    assert isinstance(find_damage(data_dir), StoreDamaged)


def test_open_without_create_leaves_nothing(data_dir: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no podwire\.db in"):
        open_store(data_dir, create=False)
    assert not data_dir.exists()


@pytest.mark.parametrize("kind", ["file", "below a file", "link"])
def test_a_folder_that_cannot_be(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data"
    if kind == "link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("")
    with pytest.raises(StoreError) as caught:
        open_at(path / "below" if kind == "below a file" else path)
    assert caught.value.code == 5
    assert str(path) in str(caught.value)


def test_strange_folder_names(tmp_path: Path) -> None:
    data_dir = tmp_path / "a ?b#c%20d'é"
    with open_at(data_dir) as store, store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
    assert (data_dir / "podwire.db").exists()


def test_a_refill_fills_a_new_database_only(data_dir: Path) -> None:
    def refill(tx: Transaction) -> None:
        tx.reserve(owner(1), ip("10.0.0.5"))

    for _ in range(2):
        with open_store(data_dir, boot_id=BOOT, refill=refill) as store, store.transaction() as tx:
            holder = tx.release_address(NETWORK, ip("10.0.0.5"))
            assert (store.created, holder) in ((True, owner(1)), (False, None))
    assert not store.created
    with open_at(data_dir) as store:
        assert addresses(store) == set()


def test_a_refill_that_fails_leaves_no_database(data_dir: Path) -> None:
    def refill(tx: Transaction) -> None:
        raise OSError("the kernel does not answer")

    with pytest.raises(OSError, match="the kernel does not answer"):
        open_store(data_dir, boot_id=BOOT, refill=refill)
    assert [path.name for path in data_dir.iterdir()] == ["podwire.db.lock"]


def test_a_leftover_of_a_killed_creator_is_no_obstacle(data_dir: Path) -> None:
    data_dir.mkdir()
    for name in ("podwire.db.new", "podwire.db.new-journal"):
        (data_dir / name).write_text("half")
    with open_at(data_dir) as store:
        assert addresses(store) == set()
    assert not list(data_dir.glob("podwire.db.new*"))


def test_threads_share_a_store(store: Store) -> None:
    errors = []

    def work(number: int) -> None:
        try:
            for turn in range(10):
                with store.transaction() as tx:
                    tx.reserve(owner(f"{number}-{turn}"), ip(f"10.0.{number}.{turn}"))
                with store.read() as tx:
                    assert tx.addresses(owner(f"{number}-{turn}"))
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(addresses(store)) == 80


def test_transactions_do_not_nest(store: Store) -> None:
    with (
        store.transaction(),
        pytest.raises(RuntimeError, match="already open in this thread"),
        store.read(),
    ):
        pass
    assert addresses(store) == set()


def _use_after_fork(store: Store) -> None:
    try:
        addresses(store)
    except RuntimeError as error:
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)


def test_a_store_is_not_carried_over_a_fork(store: Store) -> None:
    child = multiprocessing.get_context("fork").Process(target=_use_after_fork, args=(store,))
    child.start()
    child.join()
    assert child.exitcode == 7


def test_a_deleted_database_is_noticed(data_dir: Path, store: Store) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
    store.path.unlink()
    store.created = False
    assert addresses(store) == set()
    assert store.created
    # The write-ahead log of the deleted one must not be replayed into its successor.
    assert list(data_dir.glob("podwire.db.damaged-*-wal"))


def test_a_replaced_database_is_noticed(tmp_path: Path, store: Store) -> None:
    with store.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
    with open_at(tmp_path / "other") as other, other.transaction() as tx:
        tx.reserve(owner(2), ip("10.0.0.6"))
    for suffix in ("-wal", "-shm"):
        Path(f"{store.path}{suffix}").unlink()
    os.rename(other.path, store.path)
    assert addresses(store) == {"10.0.0.6"}


def test_closing_a_moved_database_leaves_its_successors_log_alone(data_dir: Path) -> None:
    files = Files(data_dir)
    with open_at(data_dir) as first, first.transaction() as tx:
        tx.reserve(owner(1), ip("10.0.0.5"))
    old = connect(files.database)
    old.execute("UPDATE meta SET value = value")
    for suffix in ("", "-wal", "-shm"):
        os.rename(f"{files.database}{suffix}", f"{files.database}.away{suffix}")
    with open_at(data_dir) as second:
        with second.transaction() as tx:
            tx.reserve(owner(2), ip("10.0.0.6"))
        log = os.stat(f"{files.database}-wal").st_ino
        old.close()
        assert os.stat(f"{files.database}-wal").st_ino == log
        assert os.path.exists(f"{files.database}.away-wal")
        assert addresses(second) == {"10.0.0.6"}
