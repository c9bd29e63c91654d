"""The stores that a call needs, opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.host import Call
from cni_plugin.store_index import enter_store, find_stores, has_several
from ipam import HOST_LOCAL_DATA_DIR, KINDNET_DATA_DIR
from ipam.errors import StoreBusy, StoreDamaged, StoreError
from ipam.files import Files
from ipam.store import Owner, Purged, Store, Transaction, read_store

if TYPE_CHECKING:
    from kernel.bridge import IsUsed
    from kernel.model import IPAddress, IPInterface


@contextmanager
def open_node_store(call: Call, folder: Path | None = None) -> Iterator[Store]:
    """The store of this call's network, or that of the folder.

    Raises StoreDamaged, StoreBusy or StoreError.
    """
    folder = folder or call.ipam.data_dir(call)
    with call.host.open_store(folder, refill) as store:
        _log_purged(call, store)
        yield store


def enter_own_store(call: Call) -> None:
    """Note where the attachment's record will be, for calls that are configured otherwise."""
    folder = call.ipam.data_dir(call)
    try:
        enter_store(call.host.index, folder)
    except OSError as error:
        call.log(f"{call.host.index}: {error.strerror}; DEL will need the dataDir {folder}")


def begin_transaction(store: Store, ports: Sized) -> AbstractContextManager[Transaction]:
    """A transaction of a call that maps or frees these host ports.

    Other calls wait for its end: what such ports need is imported before.
    """
    if ports:
        import_module("cni_plugin.port_conflicts")
    return store.transaction()


def stores_of_node(call: Call) -> list[Path]:
    """The folders of all stores of the node; where there is none yet, the configuration's."""
    return find_stores(call.host.index, call.ipam.data_dir(call))


def stores_of_attachment(call: Call) -> list[Path]:
    """The folders of the stores that know the attachment; where none does, the configuration's."""
    folders = stores_of_node(call)
    if len(folders) == 1:
        return folders
    return [f for f in folders if knows(call, f)] or [call.ipam.data_dir(call)]


def adopt_from_other_stores(call: Call, tx: Transaction, addresses: Sequence[IPAddress]) -> bool:
    """Whether another store of the node has allocated one of these addresses of the network.

    Then this store knows its owner from now on, even where it just gave it to the call's.
    """
    if not has_several(call.host.index):
        return False
    found = False
    for folder in stores_of_node(call):
        if folder == tx.path.parent:
            continue
        try:
            holders = read_store(folder, partial(_holders, call.owner.network, addresses))
        except StoreError as error:
            call.log(f"whether another store has {', '.join(map(str, addresses))}: {error}")
            continue
        for address, owner, record in holders or ():
            if owner != call.owner:
                tx.adopt(owner, address)
                if record and tx.attachment(owner) is None:
                    tx.put_attachment(owner, record)
                found = True
    return found


def _holders(
    network: str, addresses: Sequence[IPAddress], tx: Transaction
) -> list[tuple[IPAddress, Owner, str | None]]:
    """Those of the addresses that are allocated, each with its owner and that one's record."""
    owners = [(address, tx.owner_of(network, address)) for address in addresses]
    return [(address, owner, tx.attachment(owner)) for address, owner in owners if owner]


def reservation_folders(call: Call) -> tuple[str, ...]:
    """Where `host-local` may have kept reservations: usual places, and the configuration's."""
    usual, named = (HOST_LOCAL_DATA_DIR, KINDNET_DATA_DIR), call.conf.ipam.get("dataDir")
    if not isinstance(named, str) or not named.startswith("/") or "\0" in named:
        return usual
    return tuple(dict.fromkeys((*usual, named.rstrip("/"))))


def knows(call: Call, folder: Path) -> bool:
    """Whether the folder has a store with the attachment."""
    if not Files(folder).database.exists():
        return False
    try:
        with open_node_store(call, folder) as store, store.read() as tx:
            return tx.knows(call.owner)
    except (StoreBusy, StoreDamaged):
        raise
    except StoreError as error:
        call.log(f"{error}")
        return False


@contextmanager
def tolerate_unwritable(call: Call, instead: Callable[[], object] = str) -> Iterator[None]:
    """For a DEL or GC: a store that cannot be read or written is logged, and stops neither.

    What is in the kernel goes all the same, and the rows later: with GC, or when an address is
    needed. instead: what is done without the store. Raises StoreBusy, StoreDamaged.
    """
    try:
        yield
    except (StoreBusy, StoreDamaged):
        raise
    except StoreError as error:
        instead()
        call.log(f"what the store has stays there, addresses stay allocated for now: {error}")


def _log_purged(call: Call, store: Store) -> None:
    purged, store.purged = store.purged, Purged()
    if purged.attachments or purged.allocations:
        call.log(
            f"the node was restarted: {purged.allocations} addresses and {purged.attachments}"
            " attachments of the earlier boot are free again"
        )


@contextmanager
def bridge_users(store: Store) -> Iterator[IsUsed]:
    """Whether attachments have a gateway; meanwhile no ADD can record another attachment."""
    with store.transaction() as tx:
        yield partial(is_gateway_used, tx)


def is_gateway_used(tx: Transaction, gateway: IPInterface) -> bool:
    """Whether the record of an attachment has the gateway, as JSON text."""
    return tx.is_recorded(f'"{gateway}"')


def refill(tx: Transaction) -> None:
    """Write what the marks on the node's links say into a new database."""
    from cni_plugin.rebuild import fill_from_marks  # needed where a database is made

    fill_from_marks(tx)


def recover_store(folder: Path, log: Callable[[str], None]) -> None:
    """Replace a damaged podwire.db, which is kept, by one filled from the kernel, in one step."""
    from ipam.recovery import recover

    aside = recover(folder, refill)
    if aside is not None:
        log(
            f"podwire: {folder / 'podwire.db'} was damaged. It is kept as {aside}; the new one was"
            " filled from the kernel and from what could still be read. Addresses that podwire-ipam"
            " gave to another main plugin's pods may be missing: compare `podwire-ipam list`"
        )
