"""Repair of the nftables rules that attachments need, for the daemon."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cni_plugin.network_rules import (
    cleanup_records,
    ensure_masquerade,
    ensure_parts,
    foreign_elements,
    marked_links,
    masquerade_differs,
    parts_needed,
    remove_unneeded,
)
from cni_plugin.store_access import refill
from ipam.errors import StoreDamaged, StoreError
from ipam.files import BUSY_TIMEOUT, Files
from ipam.store import Store, Transaction, open_store
from kernel.diff import Change, Noun
from kernel.model import Acceptance, ChainRules, Element, IPAddress
from kernel.netlink.socket import Netlink, open_netlink
from kernel.nftables.port_mappings import forget_datagrams
from kernel.nftables.ruleset import (
    ATTACHMENT_SETS,
    FAMILIES,
    MASQUERADE,
    NODE,
    NODE_SETS,
    PARTS,
    part_of,
    remove_empty_tables,
)
from kernel.nftables.set_messages import (
    change_elements,
    ordered,
    read_elements,
    read_mapped,
    read_sets,
    remove_elements,
)
from kernel.nftables.table import (
    TABLE,
    load,
    open_nft,
    table_changes,
    table_is_present,
)
from kernel.read import read_links

MissingRule = tuple[str | Element | Acceptance, int]
"""What is missing: a part's name, PREFIXES, an element, or the acceptance of an address; and the
index of the link that needs it, by which the next attachment of the same name and address is
another. 0: the node needs it."""

PREFIXES = "prefixes"
"""The prefixes that are masqueraded differ."""
TABLE_MISSING: MissingRule = ("table", 0)
"""The table that the node needs, attachments or not: no call removes it."""


def find_missing_rules(data_dir: Path, patience: float = BUSY_TIMEOUT) -> frozenset[MissingRule]:
    """What is missing of rules, prefixes and elements at this moment; changes nothing.

    An ADD in progress has not added all of its elements yet; its link, made first, is new then.
    patience: seconds to wait for a store that others lock. Raises KernelError,
    ipam.errors.IpamError.
    """
    with open_nft() as nl:
        bare = any(read_elements(nl, a_set) is None for a_set in NODE_SETS)
        if bare or not Files(data_dir).database.exists():
            return frozenset([TABLE_MISSING] if bare else [])
        with open_store(data_dir, refill=refill, patience=patience) as store, store.read() as tx:
            needs, elements = _missing_elements(nl, tx)
            return frozenset(
                [
                    *_missing_parts(nl, needs),
                    *_missing_prefixes(tx, needs),
                    *elements,
                    *_missing_acceptance(needs),
                ]
            )


def repair_rules(
    data_dir: Path, missing: Collection[MissingRule], patience: float = BUSY_TIMEOUT
) -> Sequence[Change[Noun]]:
    """Restore what `find_missing_rules` found and what is missing still; returns what was.

    With the table `inet podwire` everything is restored. patience: as there, and raises the same.
    """
    whole = TABLE_MISSING in missing
    changes: list[Change[Noun]] = []
    if whole:
        load(NODE)
        changes.append(Change(ChainRules(NODE.family, TABLE), None))
    if not Files(data_dir).database.exists():
        return changes
    with open_store(data_dir, refill=refill, patience=patience) as store:
        parts = _parts(store) if whole else _parts_among(missing)
        changes += ensure_parts(store, sorted(parts))
        if whole or any(what == PREFIXES for what, _index in missing):
            changes += ensure_masquerade(store)
        chosen = None if whole else missing
        lost = _repair_elements(store, chosen)
        restored: list[Noun] = [*lost, *_repair_acceptance(store, chosen)]
    return [*changes, *(Change(noun, None) for noun in restored)]


def _repair_acceptance(
    store: Store, missing: Collection[MissingRule] | None
) -> Sequence[Acceptance]:
    """Restore the acceptance of these addresses (None: all); what was missing."""
    with store.read() as tx:
        needs = _read_needs(tx)
    lost = [each for each in _missing_acceptance(needs) if missing is None or each in missing]
    if not lost:
        return []
    from kernel.acceptance import accept, withdraw

    groups = _by_filter(lost)
    for group in groups:
        accept(group)
    # DEL removes the link, and then what we may have added since.
    with store.read() as tx:
        wanted = _read_needs(tx).acceptance
    for each in {each for each, _index in lost} - wanted.keys():
        withdraw(each)
    return groups


def _repair_elements(store: Store, missing: Collection[MissingRule] | None) -> list[Element]:
    """Restore attachments' own elements (None: all); those that were missing, in order."""
    with open_nft() as nl:
        with store.read() as tx:
            complete = not _chosen(_missing_elements(nl, tx)[1], missing)
        if complete:
            return []
        with store.transaction() as tx:
            needs, found = _missing_elements(nl, tx)
            lost, wanted = _chosen(found, missing), {element for element, _index in needs.elements}
            strays = read_mapped(nl, (e for e in lost if e.data is not None)) - wanted
            change_elements(nl, lost, strays)
            # DEL removes the link, and then the elements under our lock; an ADD that fails does so
            # without it, perhaps before we had added them.
            wanted = {element for element, _index in _read_needs(tx).elements}
            remove_elements(nl, [e for e in lost if e not in wanted])
    # What was sent to a mapped port meanwhile is tracked as the node's own, or leads elsewhere.
    forget_datagrams(lost)
    return lost


def _chosen(
    lost: set[tuple[Element, int]], missing: Collection[MissingRule] | None
) -> list[Element]:
    return ordered({each[0] for each in lost if missing is None or each in missing})


@dataclass(frozen=True, slots=True)
class _Needs:
    """What attachments need whose link is there, each with the index of the link.

    acceptance: of single addresses. masqueraded: the links whose networks are.
    """

    elements: set[tuple[Element, int]]
    acceptance: dict[Acceptance, int]
    masqueraded: set[int]


def _read_needs(tx: Transaction) -> _Needs:
    with open_netlink() as nl:
        links = {link.name: link.index for link in read_links(nl)}
    networks, foreign = tx.networks(), foreign_elements(tx)
    needs = _Needs(set(foreign), {}, {index for _element, index in foreign})
    for owner, record in cleanup_records(tx):
        index = links.get(record.foreign or record.host)
        if index is None:
            continue
        needs.elements.update((element, index) for element in record.elements)
        if record.acceptance:
            needs.acceptance.update(dict.fromkeys(_each_address(record.acceptance), index))
        if owner.network in networks:
            needs.masqueraded.add(index)
    return needs


def _missing_elements(nl: Netlink, tx: Transaction) -> tuple[_Needs, set[tuple[Element, int]]]:
    """What is needed, and the elements that are missing of it."""
    # Before the links: what goes meanwhile is not missing.
    present = read_sets(nl, ATTACHMENT_SETS)
    needs = _read_needs(tx)
    return needs, {each for each in needs.elements if each[0] not in present}


def _missing_parts(nl: Netlink, needs: _Needs) -> Iterator[MissingRule]:
    needed = {(part, index) for element, index in needs.elements if (part := part_of(element))}
    needed |= {(MASQUERADE, index) for index in needs.masqueraded}
    missing = {part for part in dict(needed) if table_changes(nl, PARTS[part])}
    return ((part, index) for part, index in needed if part in missing)


def _missing_acceptance(needs: _Needs) -> Iterator[tuple[Acceptance, int]]:
    """Each address that filters of other programs do not accept, though an attachment asks for it,
    with the index of its link."""
    desired = needs.acceptance
    if not desired:
        return
    from kernel.acceptance import acceptance_changes  # few networks need it

    for group in _by_filter(desired.items()):
        for change in acceptance_changes(group):
            for each in _each_address(change.noun):
                yield each, desired[each]


def _each_address(acceptance: Acceptance) -> list[Acceptance]:
    return [replace(acceptance, addresses=(address,)) for address in acceptance.addresses]


def _by_filter(found: Iterable[tuple[Acceptance, int]]) -> list[Acceptance]:
    """Together what differs in its address alone."""
    groups: dict[Acceptance, list[IPAddress]] = {}
    for each, _index in found:
        groups.setdefault(replace(each, addresses=()), []).extend(each.addresses)
    return [replace(group, addresses=tuple(mine)) for group, mine in groups.items()]


def _missing_prefixes(tx: Transaction, needs: _Needs) -> Iterable[MissingRule]:
    if not masquerade_differs(tx):
        return []
    # The ADD of an old link has applied its prefixes long ago.
    return [(PREFIXES, index) for index in needs.masqueraded or {-_fingerprint(tx)}]


def _fingerprint(tx: Transaction) -> int:
    """A number for the store's attachments, 0 for none: calls in progress change it."""
    return abs(hash(frozenset(tx.attachments()))) if tx.has_attachments() else 0


def remove_unneeded_tables(data_dir: Path) -> list[str]:
    """Remove podwire's tables if no attachment of the node is left; the names of those removed.

    Where there is no store, or a damaged one, the marks on links decide. Raises KernelError,
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
        return {f"table {f} {TABLE}" for f in FAMILIES if table_is_present(nl, f)}


def _parts_among(missing: Collection[MissingRule]) -> set[str]:
    return {what for what, _index in missing if isinstance(what, str) and what in PARTS}


def _parts(store: Store) -> set[str]:
    with store.read() as tx:
        elements = [e for _owner, record in cleanup_records(tx) for e in record.elements]
        masquerade = bool(tx.networks() or foreign_elements(tx))
        return parts_needed(elements, masquerade=masquerade)
