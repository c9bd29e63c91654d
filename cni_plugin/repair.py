"""What attachments need of podwire's rules, brought back by whoever watches over the node."""

from __future__ import annotations

from pathlib import Path

from cni_plugin.networks import (
    ensure_masquerade,
    ensure_tables,
    marked_links,
    remove_unneeded,
)
from cni_plugin.rebuild import refill
from cni_plugin.record import load_record
from ipam.errors import StoreDamaged, StoreError
from ipam.files import Files
from ipam.store import Store, open_store
from kernel import nft
from kernel.masquerade import remove_empty_tables
from kernel.netlink import open_netlink


def repair_rules(data_dir: Path) -> list[str]:
    """Bring back tables, shared rules and members where they are missing; what was, in words.

    The table `inet podwire` is made where no attachment needs it, too. Raises KernelError,
    ipam.errors.IpamError.
    """
    if not Files(data_dir).database.exists():
        return _make_table()
    with open_store(data_dir, refill=refill) as store:
        families = {"inet", *_families(store)}
        with nft.open_nft() as nl:
            missing = sorted(f for f in families if not nft.skeleton_is_present(nl, f))
        ensure_tables(store, missing)
        ensure_masquerade(store)
    return [f"table {family} {nft.TABLE} was missing or incomplete" for family in missing]


def remove_unneeded_tables(data_dir: Path) -> list[str]:
    """Remove podwire's tables if no attachment of the node is left; the names of those removed.

    Where there is no store, or a damaged one, the marks on links tell. Raises KernelError,
    ipam.errors.IpamError.
    """
    before = _tables()
    if not before:
        return []
    try:
        with open_store(data_dir, create=False) as store, store.transaction() as tx:
            remove_unneeded(tx)
    except StoreError as error:
        if not isinstance(error, StoreDamaged) and Files(data_dir).database.exists():
            raise
        _remove_unmarked()
    return sorted(before - _tables())


def _remove_unmarked() -> None:
    with open_netlink() as nl:
        needed = bool(marked_links(nl))
    if not needed:
        remove_empty_tables()


def _tables() -> set[str]:
    with nft.open_nft() as nl:
        return {f"table {f} {nft.TABLE}" for f in nft.FAMILIES if nft.table_is_present(nl, f)}


def _make_table() -> list[str]:
    with nft.open_nft() as nl:
        if nft.skeleton_is_present(nl, "inet"):
            return []
    nft.load_skeleton("inet")
    return [f"table inet {nft.TABLE} was missing or incomplete"]


def _families(store: Store) -> set[str]:
    with store.read() as tx:
        texts = [text for _owner, text in tx.attachments()]
    found = set()
    for text in texts:
        try:
            found |= {element.family for element in load_record(text).plan.elements}
        except (ValueError, TypeError, KeyError):
            continue  # a record of another version needs what it needs at its own DEL
    return found
