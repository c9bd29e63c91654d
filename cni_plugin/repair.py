"""What attachments need of podwire's rules, brought back by whoever watches over the node."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cni_plugin.networks import (
    elements_of_strangers,
    ensure_masquerade,
    ensure_tables,
    marked_links,
    remove_unneeded,
)
from cni_plugin.rebuild import refill
from cni_plugin.record import Remains, load_remains
from ipam.errors import StoreDamaged, StoreError
from ipam.files import BUSY_TIMEOUT, Files
from ipam.store import Store, Transaction, open_store
from kernel import nft
from kernel.masquerade import remove_empty_tables
from kernel.model import Element
from kernel.netlink import Netlink, open_netlink
from kernel.read import read_links

_NAMED = 8
"""So many members are named, of more the number."""


def repair_rules(data_dir: Path, patience: float = BUSY_TIMEOUT) -> list[str]:
    """Bring back tables, shared rules and members where they are missing; what was, in words.

    The table `inet podwire` is made where no attachment needs it, too. patience: seconds
    to wait for a store that others lock. Raises KernelError, ipam.errors.IpamError.
    """
    if not Files(data_dir).database.exists():
        return _make_table()
    with open_store(data_dir, refill=refill, patience=patience) as store:
        families = {"inet", *_families(store)}
        with nft.open_nft() as nl:
            missing = sorted(f for f in families if not nft.skeleton_is_present(nl, f))
        ensure_tables(store, missing)
        differed = ensure_masquerade(store)
        lacking = _repair_members(store)
    faults = [f"table {family} {nft.TABLE} was missing or incomplete" for family in missing]
    if differed:
        faults.append("the prefixes that are masqueraded were others")
    return [*faults, *_tell(lacking)]


def _tell(lacking: list[Element]) -> Iterable[str]:
    for element in lacking[:_NAMED]:
        yield f"missing: {nft.tell_element(element)}"
    if len(lacking) > _NAMED:
        yield f"{len(lacking) - _NAMED} more members were missing"


def _repair_members(store: Store) -> list[Element]:
    """Bring back attachments' own members; those that were missing, in order."""
    with nft.open_nft() as nl:
        with store.read() as tx:
            complete = not _lacking(nl, tx)
        if complete:
            return []
        with store.transaction() as tx:
            lacking = _lacking(nl, tx)
            nft.add_elements(nl, lacking)
            # DEL removes the link, and then the members under our lock; an ADD that fails does so
            # without it, perhaps before we had added them.
            wanted = _members(tx)
            nft.remove_elements(nl, [e for e in lacking if e not in wanted])
    return lacking


def _lacking(nl: Netlink, tx: Transaction) -> list[Element]:
    have = set[Element]()
    for family, name in nft.ATTACHMENT_SETS:
        have |= nft.read_elements(nl, family, name) or frozenset()
    missing = _members(tx) - have
    return sorted(missing, key=lambda e: (e.family, e.set_name, e.key))


def _members(tx: Transaction) -> set[Element]:
    """The members of all attachments whose link is there, which goes first."""
    with open_netlink() as nl:
        links = {link.name for link in read_links(nl)}
    known = {e for r in _remains(tx) if r.host in links for e in r.elements}
    return known.union(elements_of_strangers(tx))


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
        return {element.family for remains in _remains(tx) for element in remains.elements}


def _remains(tx: Transaction) -> Iterable[Remains]:
    for _owner, text in tx.attachments():
        try:
            yield load_remains(text)
        except (ValueError, TypeError, KeyError, IndexError):
            continue  # a record of another version needs what it needs at its own DEL
