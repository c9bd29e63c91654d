"""What attachments need of podwire's rules, brought back by whoever watches over the node."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from cni_plugin.attachment import CleanupRecord, load_cleanup_record
from cni_plugin.network_rules import (
    ensure_masquerade,
    ensure_tables,
    marked_links,
    masquerade_differs,
    members_of_strangers,
    remove_unneeded,
)
from cni_plugin.store_access import refill
from ipam.errors import StoreDamaged, StoreError
from ipam.files import BUSY_TIMEOUT, Files
from ipam.store import Store, Transaction, open_store
from kernel.diff import Change, Noun
from kernel.model import Element
from kernel.netlink.socket import Netlink, open_netlink
from kernel.nftables.masquerade import remove_empty_tables
from kernel.nftables.ruleset import ATTACHMENT_SETS, TABLES
from kernel.nftables.set_messages import add_elements, read_sets, remove_elements
from kernel.nftables.table import (
    TABLE,
    ensure_table,
    open_nft,
    table_changes,
    table_is_present,
)
from kernel.read import read_links

Lack = tuple[str | Element, int]
"""What is missing: a table's family, MASQUERADE or a member; and the index of the link that needs
it, by which the next attachment of the same name and address is another. 0: the node needs it."""

MASQUERADE = "masquerade"
"""The prefixes that are masqueraded differ."""
TABLE_LACKS: Lack = ("inet", 0)
"""The table that the node needs, attachments or not: no call takes it away."""


def find_lacks(data_dir: Path, patience: float = BUSY_TIMEOUT) -> frozenset[Lack]:
    """What is missing of tables, shared rules and members at this moment; changes nothing.

    An ADD under way lacks what it has not made yet: its link, which comes first, tells.
    patience: seconds to wait for a store that others lock. Raises KernelError,
    ipam.errors.IpamError.
    """
    with open_nft() as nl:
        bare = bool(table_changes(nl, TABLES["inet"]))
        if bare or not Files(data_dir).database.exists():
            return frozenset([TABLE_LACKS] if bare else [])
        with open_store(data_dir, refill=refill, patience=patience) as store, store.read() as tx:
            return frozenset(
                [*_tables_lacking(nl, tx), *_masquerade_lacking(tx), *_lacking(nl, tx)]
            )


def repair_rules(
    data_dir: Path, lacks: Collection[Lack], patience: float = BUSY_TIMEOUT
) -> Sequence[Change[Noun]]:
    """Bring back what `find_lacks` found, where it is missing still; what was.

    Where the table `inet podwire` is, everything is. patience: as there, and raises the same.
    """
    if not Files(data_dir).database.exists():
        return _make_table()
    with open_store(data_dir, refill=refill, patience=patience) as store:
        whole = TABLE_LACKS in lacks
        families = {"inet", *(_families(store) if whole else ())}
        families |= {what for what, _index in lacks if isinstance(what, str) and what in TABLES}
        changes: list[Change[Noun]] = [*ensure_tables(store, sorted(families))]
        if whole or any(what == MASQUERADE for what, _index in lacks):
            changes += ensure_masquerade(store)
        lacking = _repair_members(store, None if whole else lacks)
    return [*changes, *(Change(element, None) for element in lacking)]


def _repair_members(store: Store, lacks: Collection[Lack] | None) -> list[Element]:
    """Bring back attachments' own members (None: all); those that were missing, in order."""
    with open_nft() as nl:
        with store.read() as tx:
            complete = not _chosen(_lacking(nl, tx), lacks)
        if complete:
            return []
        with store.transaction() as tx:
            lacking = _chosen(_lacking(nl, tx), lacks)
            add_elements(nl, lacking)
            # DEL removes the link, and then the members under our lock; an ADD that fails does so
            # without it, perhaps before we had added them.
            wanted = {element for element, _index in _members(tx)}
            remove_elements(nl, [e for e in lacking if e not in wanted])
    return lacking


def _chosen(lacking: set[tuple[Element, int]], lacks: Collection[Lack] | None) -> list[Element]:
    chosen = {member[0] for member in lacking if lacks is None or member in lacks}
    return sorted(chosen, key=lambda e: (e.family, e.set_name, e.key))


def _lacking(nl: Netlink, tx: Transaction) -> set[tuple[Element, int]]:
    present = read_sets(nl, ATTACHMENT_SETS)
    return {member for member in _members(tx) if member[0] not in present}


def _members(tx: Transaction) -> set[tuple[Element, int]]:
    """The members of all attachments whose link is there, which goes first."""
    known = {(e, index) for r, index in _attached(tx) for e in r.elements}
    return known.union(members_of_strangers(tx))


def _attached(tx: Transaction, network: str | None = None) -> list[tuple[CleanupRecord, int]]:
    """Attachments (of one network) whose link is there, each with its index."""
    with open_netlink() as nl:
        links = {link.name: link.index for link in read_links(nl)}
    return [(r, links[r.host]) for r in _cleanup_records(tx, network) if r.host in links]


def _tables_lacking(nl: Netlink, tx: Transaction) -> Iterator[Lack]:
    needed = {(e.family, index) for r, index in _attached(tx) for e in r.elements}
    missing = {f for f in dict(needed) if table_changes(nl, TABLES[f])}
    return ((family, index) for family, index in needed if family in missing)


def _masquerade_lacking(tx: Transaction) -> Iterable[Lack]:
    if not masquerade_differs(tx):
        return []
    # One that has been there for long has had its ADD's.
    networks = tx.networks()
    links = {index for network in networks for _record, index in _attached(tx, network)}
    links |= {index for _element, index in members_of_strangers(tx)}
    return [(MASQUERADE, index) for index in links or {-_fingerprint(tx)}]


def _fingerprint(tx: Transaction) -> int:
    """A number for what the store holds, 0 for nothing: calls under way change it."""
    return abs(hash(frozenset(tx.attachments()))) if tx.has_attachments() else 0


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
    with open_nft() as nl:
        return {f"table {f} {TABLE}" for f in TABLES if table_is_present(nl, f)}


def _make_table() -> Sequence[Change[Noun]]:
    with open_nft() as nl:
        return ensure_table(nl, TABLES["inet"])


def _families(store: Store) -> set[str]:
    with store.read() as tx:
        return {element.family for record in _cleanup_records(tx) for element in record.elements}


def _cleanup_records(tx: Transaction, network: str | None = None) -> Iterable[CleanupRecord]:
    for _owner, text in tx.attachments(network):
        try:
            yield load_cleanup_record(text)
        except (ValueError, TypeError, KeyError, IndexError):
            continue  # a record of another version needs what it needs at its own DEL
