"""Stores that calls name: kept open for the next call, and never closed in use."""

from __future__ import annotations

import os
import random
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from daemon.cni_server.host import Stores
from daemon.cni_server.worker_pool import THREADS
from ipam.transaction import Owner
from tests import ROOT


def refill(_tx: object) -> None:
    """Nothing is known."""


def descriptors(folder: Path) -> int:
    """How many files below the folder are open, removed ones too."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue
    return sum(name.startswith(f"{folder}/") for name in names)


def use(stores: Stores, folder: Path) -> None:
    with stores.open(folder, refill) as store, store.transaction() as tx:
        tx.put_attachment(Owner("n", "c", "eth0"), "text")


def test_a_store_is_opened_once(tmp_path: Path) -> None:
    stores = Stores()
    with stores.open(tmp_path, refill) as first, stores.open(tmp_path, refill) as second:
        assert first is second
    with stores.open(tmp_path, refill) as third:
        assert third is first
    stores.close()
    assert descriptors(tmp_path) == 0


def test_one_that_was_removed_is_closed_by_its_last_user(tmp_path: Path) -> None:
    stores, folder = Stores(), tmp_path / "a"
    use(stores, folder)
    usual = descriptors(tmp_path)
    with stores.open(folder, refill) as old:
        shutil.rmtree(folder)
        with stores.open(folder, refill) as new:
            assert new is not old
        use(stores, folder)
        assert descriptors(tmp_path) > usual
    assert descriptors(tmp_path) == usual
    stores.close()
    assert descriptors(tmp_path) == 0


def test_many_threads_and_many_stores(tmp_path: Path) -> None:
    stores, begin = Stores(), threading.Barrier(8)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        begin.wait()
        for n in range(40):
            folder = tmp_path / str(rng.randrange(5))
            with stores.open(folder, refill) as store, store.transaction() as tx:
                tx.put_attachment(Owner("n", f"{seed}-{n}", "eth0"), "text")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    found = 0
    for n in range(5):
        with stores.open(tmp_path / str(n), refill) as store, store.read() as tx:
            found += len(list(tx.attachments("n")))
    assert found == 320
    stores.close()
    assert descriptors(tmp_path) == 0


def test_the_unit_allows_as_many_descriptors_as_there_may_be() -> None:
    unit = ROOT / "packaging" / "systemd" / "podwired.service"
    found = re.search(r"^LimitNOFILE=(\d+)$", unit.read_text(), re.MULTILINE)
    assert found is not None
    calls, stores = THREADS * 10, THREADS * 4
    assert int(found[1]) >= 10 * (calls + stores)
