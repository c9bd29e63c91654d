"""Many processes on one store, and processes that are killed."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from ipam.recovery import find_damage
from ipam.store import Store
from tests.unit.ipam.helpers import NETWORK, ip, open_at, owner
from tests.unit.ipam.processes import command, run, run_at_once, started
from tests.unit.ipam.worker import IN_KERNEL, add


def check_consistent(store: Store) -> None:
    """Every attachment's record names exactly the addresses that its owner holds."""
    with store.read() as tx:
        held = {o: " ".join(map(str, tx.addresses(o))) for o, _ in tx.attachments()}
        assert dict(tx.attachments()) == held
        assert tx.count(NETWORK) == 2 * len(held)


def test_64_processes_get_128_different_addresses(data_dir: Path) -> None:
    outputs = run_at_once([command("add_many", data_dir, n, 2) for n in range(64)])
    addresses = [word for output in outputs for word in output.split()]
    assert len(addresses) == 64 * 2 * 2
    assert len(set(addresses)) == len(addresses)
    with open_at(data_dir) as store:
        check_consistent(store)
        with store.read() as tx:
            assert {str(a.address) for a in tx.allocations()} == set(addresses)


def test_a_writer_waits_for_a_crowd_whatever_signals_come(data_dir: Path) -> None:
    """Dozens of calls that each need an interpreter keep the last of them waiting for long."""
    with open_at(data_dir) as store, started([command("write_under_signals", data_dir)]) as writers:
        (writer,) = writers
        with store.transaction() as tx:
            tx.put_network("mine", "{}")
            with pytest.raises(subprocess.TimeoutExpired):  # an error ends it much earlier
                writer.wait(timeout=12)
        output, errors = writer.communicate(timeout=30)
        assert (output.split(), errors) == (["written"], "")
        with store.read() as tx:
            assert set(tx.networks()) == {"mine", "under signals"}


def test_a_killed_process_loses_nothing_that_it_had_committed(data_dir: Path) -> None:
    for lines in range(1, 120, 13):
        with started([command("churn", data_dir)]) as (process,):
            assert process.stdout is not None
            text = "".join(process.stdout.readline() for _ in range(lines))
            process.kill()
            # Not communicate(): it reads past what readline has read ahead.
            text += process.stdout.read()
            process.wait()
        said = [line.split() for line in text.split("\n")[:-1]]  # without a line that is cut off
        added = {int(number) for what, number in said if what == "added"}
        deleted = {int(number) for what, number in said if what == "deleted"}
        assert find_damage(data_dir) is None
        with open_at(data_dir) as store:
            check_consistent(store)
            with store.transaction() as tx:
                kept = {int(o.container_id.removeprefix("container")) for o, _ in tx.attachments()}
                # The last operation may have been committed and not been said.
                assert len(kept ^ (added - deleted)) <= 1
                for number in kept:
                    tx.release(owner(number))
                    tx.delete_attachment(owner(number))


def test_kill_at_every_statement(tmp_path: Path) -> None:
    seen = set()
    for number in range(1, 200):
        data_dir = tmp_path / str(number)
        with open_at(data_dir) as store:
            before = add(store, "before")
        done = run("kill_at_statement", data_dir, number)
        with open_at(data_dir) as store:
            check_consistent(store)
            with store.read() as tx:
                there = bool(tx.addresses(owner("a")))
            assert there or "added" not in done.stdout or done.returncode != 0 or number > 20
            seen.add((done.stdout.count("\n"), there))
            assert add(store, "before") == before
            assert add(store, "after")[0] != before[0]
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "added\ndeleted\n"
    # Killed before the first commit, and between the two.
    assert {(0, False), (1, True)} <= seen


@pytest.mark.parametrize("worker", ["kill_in_creation", "kill_in_recovery"])
def test_kill_before_every_file_operation(tmp_path: Path, worker: str) -> None:
    """Whatever the moment, nobody ever sees an empty database."""
    for number in range(1, 100):
        data_dir = tmp_path / str(number)
        if worker == "kill_in_recovery":
            with open_at(data_dir) as store:
                add(store, "lost")
            store.path.write_bytes(b"x" * 8192)
        done = run(worker, data_dir, number)
        (output,) = run_at_once([command("add_recovering", data_dir, "new")])
        assert ip(output.strip()) == ip("10.0.0.12")
        with open_at(data_dir) as store, store.read() as tx:
            assert {a.address for a in tx.allocations() if a.address.version == 4} == {
                *IN_KERNEL, ip("10.0.0.12"),
            }  # fmt: skip
        damaged = {p for p in data_dir.glob("*damaged*") if p.read_bytes() == b"x" * 8192}
        assert bool(damaged) == (worker == "kill_in_recovery")
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "done\n"
    assert number > 5
