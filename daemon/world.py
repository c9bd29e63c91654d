"""What the daemon keeps warm between calls: open stores, parsed modules, one remover of links."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from cni_plugin import add, check, delete, dispatch, ipam_verbs
from cni_plugin.errors import CniError
from cni_plugin.host import Host, always_ready
from daemon.turns import Turns
from ipam.files import Files, Refill
from ipam.store import Store, open_store
from kernel.linkgroup import LinkRemover
from kernel.netlink import Netlink

FileId = tuple[int, int] | None
"""Device and inode of a file; None where there is none."""

# Loaded before the first call needs them, and kept.
VERBS = (add, check, delete, dispatch, ipam_verbs)


class Stores:
    """The stores that calls have named, each opened once."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._stores: dict[Path, tuple[Store, FileId]] = {}

    def open(self, folder: Path, refill: Refill) -> AbstractContextManager[Store]:
        """The store of a folder; it stays open. Raises what `ipam.store.open_store` raises."""
        with self._mutex:
            store, lock = self._stores.get(folder, (None, None))
            # Who removed the folder removed the lock file, and others lock its successor. A store
            # that was left behind is not closed, for calls under way may be using it.
            if store is None or lock is None or lock != _lock_file(folder):
                store = open_store(folder, refill=refill)
                self._stores[folder] = store, _lock_file(folder)
            return nullcontext(store)

    def close(self) -> None:
        """Close all of them."""
        with self._mutex:
            for store, _lock in self._stores.values():
                store.close()
            self._stores.clear()


def _lock_file(folder: Path) -> FileId:
    try:
        status = os.stat(f"{folder}/{Files.LOCK}")
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def daemon_host(
    data_dir: Path,
    turns: Turns,
    readiness: Callable[[str], CniError | None] = always_ready,
) -> Iterator[Host]:
    """The node as the daemon's calls see it. readiness: see `Host`."""
    stores, links = Stores(), LinkRemover()

    def delete_link(_nl: Netlink, name: str) -> bool:
        with turns.outside():
            return links.remove(name)

    try:
        yield Host(
            data_dir=data_dir,
            open_store=stores.open,
            delete_link=delete_link,
            outside=turns.outside,
            readiness=readiness,
            delegating=turns.plugins.admitted,
            running=turns.plugins.watched,
        )
    finally:
        stores.close()
