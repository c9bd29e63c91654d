"""What each contender's IPAM has written down, read to see that nothing is left."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

from ipam.store import Owner, Store, open_store
from tests.bench.networks import NAME


class Ledger(Protocol):
    """Allocations of one contender."""

    def holds(self, container_id: str, addresses: Sequence[str]) -> list[str]:
        """What is written down for a container; empty if nothing."""

    def close(self) -> None:
        """Let go of files."""


class HostLocalLedger:
    """The reference plugin's folder: one file for each address."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / NAME

    def holds(self, container_id: str, addresses: Sequence[str]) -> list[str]:
        files = [self._folder / address for address in addresses]
        return [f"{path} of {container_id}" for path in files if path.exists()]

    def close(self) -> None:
        pass


class StoreLedger:
    """podwire's store."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._store: Store | None = None

    def holds(self, container_id: str, addresses: Sequence[str]) -> list[str]:
        if self._store is None:
            self._store = open_store(self._data_dir, create=False)
        owner = Owner(NAME, container_id, "eth0")
        with self._store.read() as tx:
            found = [f"address {address} of {owner}" for address in tx.addresses(owner)]
            return found + ([f"record of {owner}"] if tx.attachment(owner) else [])

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


class KindnetLedger:
    """The database of cni-kindnet."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "cni.db"

    def holds(self, container_id: str, addresses: Sequence[str]) -> list[str]:
        with closing(sqlite3.connect(self._path, timeout=10)) as connection:
            query = "SELECT ip_address_v4 FROM pods WHERE container_id = ?"
            rows = connection.execute(query, (container_id,)).fetchall()
        return [f"row {address} of {container_id}" for (address,) in rows]

    def close(self) -> None:
        pass
