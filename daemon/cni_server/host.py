"""What the daemon keeps ready between calls: open stores, loaded modules, the deletion of links."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cni_plugin import add, check, delete, ipam_plugin
from cni_plugin.errors import CniError
from cni_plugin.host import Host
from daemon.cni_server.worker_pool import Delegations, WorkerPool
from ipam.files import Files, Refill
from ipam.store import Store, open_store
from kernel.conntrack import SharedPass
from kernel.link_deletion import LinkRemover
from kernel.model import IPAddress
from kernel.netlink.socket import Netlink

FileId = tuple[int, int] | None
"""Device and inode of a file; None where there is none."""

# Loaded before the first call needs them, and kept.
VERBS = (add, check, delete, ipam_plugin)


@dataclass(slots=True)
class _Kept:
    """An open store. lock: its lock file. users: calls that use it; left: the last closes it."""

    store: Store
    lock: FileId
    users: int = 0
    left: bool = False


class Stores:
    """The stores that calls have named, each opened once; most nodes have one."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._kept: dict[Path, _Kept] = {}

    @contextmanager
    def open(self, folder: Path, refill: Refill) -> Iterator[Store]:
        """The store of a folder. Raises what `ipam.store.open_store` raises."""
        with self._mutex:
            kept = self._take(folder, refill)
            kept.users += 1
        try:
            yield kept.store
        finally:
            with self._mutex:
                kept.users -= 1
                self._tidy(kept)

    def close(self) -> None:
        """Close all of them."""
        with self._mutex:
            for kept in self._kept.values():
                kept.store.close()
            self._kept.clear()

    def _take(self, folder: Path, refill: Refill) -> _Kept:
        kept = self._kept.get(folder)
        # With the folder the lock file was removed, and others lock its successor.
        if kept and (kept.lock is None or kept.lock != _lock_file(folder)):
            del self._kept[folder]
            kept.left = True
            self._tidy(kept)
            kept = None
        if kept is None:
            kept = self._kept[folder] = _Kept(open_store(folder, refill=refill), _lock_file(folder))
        return kept

    def _tidy(self, kept: _Kept) -> None:
        """Close it if it was left, but never under a call that uses it."""
        if kept.left and not kept.users:
            kept.store.close()


def _lock_file(folder: Path) -> FileId:
    try:
        status = os.stat(f"{folder}/{Files.LOCK}")
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def daemon_host(
    data_dir: Path,
    pool: WorkerPool,
    delegations: Delegations,
    readiness: Callable[[str], CniError | None],
) -> Iterator[Callable[..., Host]]:
    """What makes the `Host` of a call, given what differs from call to call.

    readiness: see `Host`.
    """
    stores, links, connections = Stores(), LinkRemover(), SharedPass()

    def delete_links(_nl: Netlink, names: Sequence[str]) -> bool:
        with pool.waiting():
            return links.remove(names)

    def forget_connections(addresses: Collection[IPAddress]) -> None:
        with pool.waiting():
            connections.forget_pods(addresses)

    try:
        yield partial(
            Host,
            data_dir=data_dir,
            open_store=stores.open,
            delete_links=delete_links,
            forget_connections=forget_connections,
            outside=pool.waiting,
            readiness=readiness,
            delegating=delegations.admitted,
            running=delegations.watched,
        )
    finally:
        stores.close()
