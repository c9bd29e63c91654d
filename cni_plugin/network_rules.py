"""Rules that all attachments of a network share: there from its first to its last attachment.

What should be in the kernel follows from the store, and from the marks of links whose records are
in another one (`dataDir` is each network's own), so every call that finds it different restores it,
and the next call repairs what a killed one left.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_network

from cni_plugin.attachment import DAMAGE, CleanupRecord, load_cleanup_record
from cni_plugin.names import Mark, parse_alias
from ipam.store import Owner, Store, Transaction
from kernel.diff import Change
from kernel.errors import KernelError
from kernel.model import Acceptance, ChainRules, Element, IPNetwork, Link
from kernel.netlink.socket import Netlink, open_netlink
from kernel.nftables import firewall
from kernel.nftables.generation import read_generation
from kernel.nftables.masquerade import (
    Masqueraded,
    apply_masquerade,
    hairpin_element,
    is_masqueraded,
    masquerade_changes,
    read_kept,
)
from kernel.nftables.ruleset import (
    MASQUERADE,
    PARTS,
    TRANSIENT,
    are_parts_whole,
    load_parts,
    note_parts_whole,
    part_of,
    remove_empty_parts,
    remove_empty_tables,
)
from kernel.nftables.set_messages import change_elements, remove_elements
from kernel.nftables.table import open_nft, table_changes
from kernel.read import read_links

Prefixes = tuple[IPNetwork, ...]


def add_prefixes(
    tx: Transaction, network: str, prefixes: Prefixes, kept: Prefixes | None = None
) -> None:
    """Record that the prefixes are masqueraded, in the attachment's own transaction.

    kept: where packets of the network keep their address; None for what the kernel has, where that
    is not recorded.
    """
    known = _load(tx.network(network))
    desired = tuple(dict.fromkeys((*known.prefixes, *prefixes)))
    if kept is None:
        kept = known.kept or read_kept(desired)
    if (desired, kept) != (known.prefixes, known.kept):
        tx.put_network(network, _dump(Masqueraded(desired, kept)))


def masqueraded(tx: Transaction, network: str, prefixes: Prefixes) -> list[Masqueraded]:
    """The share of an attachment with these prefixes in what is masqueraded of its network."""
    return [Masqueraded(prefixes, _load(tx.network(network)).kept)] if prefixes else []


def ensure_masquerade(store: Store) -> tuple[Change[Element], ...]:
    """Make the kernel's masquerade elements those of the store; returns what differed."""
    with store.read() as tx:
        groups = _groups(tx)
    if is_masqueraded(groups):
        return ()
    # The write lock orders concurrent callers: each applies what the store has just then.
    with store.transaction() as tx:
        return _apply(tx)


def masquerade_differs(tx: Transaction) -> bool:
    """Whether the kernel's masquerade elements are not those of the store and of marked links."""
    return bool(masquerade_changes(_groups(tx), _foreign_groups(tx)))


def _apply(tx: Transaction) -> tuple[Change[Element], ...]:
    # Users of another store do not wait for this one's lock. They mark their link before they
    # apply, so a second read shows whether we removed what one of them has just added.
    applied: list[Masqueraded] | None = None
    groups, changes = _groups(tx), list[Change[Element]]()
    while (others := _foreign_groups(tx)) != applied:
        changes += apply_masquerade(groups, others)
        applied = others
    return tuple(changes)


def ensure_parts(store: Store, parts: Collection[str]) -> list[Change[ChainRules]]:
    """Restore these parts where their rules differ, with the elements of all attachments.

    Returns what differed.
    """
    if not parts:
        return []
    with open_nft() as nl:
        generation = read_generation(nl)
        if are_parts_whole(generation, parts):
            return []
        if not any(table_changes(nl, PARTS[name]) for name in parts):
            note_parts_whole(generation, parts)
            return []
        with store.transaction() as tx:
            # Of many calls that wait for the lock, the first restores them.
            changes = {name: table_changes(nl, PARTS[name]) for name in parts}
            broken = {name for name, found in changes.items() if found}
            if broken:
                load_parts(nl, broken)
                elements = [e for _owner, record in cleanup_records(tx) for e in record.elements]
                elements += [element for element, _index in foreign_elements(tx)]
                change_elements(nl, [e for e in elements if part_of(e) in broken], ())
    return [change for found in changes.values() for change in found]


def parts_needed(elements: Iterable[Element], *, masquerade: bool) -> set[str]:
    """The parts that attachments with these elements need; masquerade: and prefixes."""
    return {*map(part_of, elements), MASQUERADE if masquerade else ""} - {""}


def cleanup_records(tx: Transaction) -> Iterator[tuple[Owner, CleanupRecord]]:
    """The records of all attachments that this version can read."""
    for owner, text in tx.attachments():
        # One of another version needs what it needs at its own DEL.
        with suppress(*DAMAGE):
            yield owner, load_cleanup_record(text)


def foreign_elements(tx: Transaction) -> list[tuple[Element, int]]:
    """The hairpin elements of attachments whose record is in another store, each with the index of
    its attachment's link."""
    found = _foreign_links(tx)
    return [(e, link.index) for link, mark in found for e in hairpin_elements(link, mark)]


def hairpin_elements(link: Link, mark: Mark) -> tuple[Element, ...]:
    """The hairpin elements that the attachment of a marked link has."""
    if not mark.hairpin:
        return ()
    interface = link.port.bridge if link.port else link.name
    return tuple(hairpin_element(interface, a.ip) for a in mark.addresses)


def is_others(tx: Transaction, owner: Owner, element: Element) -> bool:
    """Whether another attachment needs the element, too: one of an ingress policy."""
    if not firewall.shared([element]):
        return False
    text = f'"set_name":"{element.set_name}","key":"{element.key.hex()}"'
    return tx.is_recorded(text, besides=owner)


def remove_policies(tx: Transaction, owner: Owner, elements: Iterable[Element]) -> None:
    """Remove those of an attachment's elements of ingress policies that no other one needs."""
    unused = [e for e in firewall.shared(elements) if not is_others(tx, owner, e)]
    if unused:
        with open_nft() as nl:
            remove_elements(nl, unused)


def own_acceptance(tx: Transaction, owner: Owner, accepted: Acceptance) -> Acceptance:
    """The part of it that no other attachment asks for: one may have an address by now."""
    mine = (a for a in accepted.addresses if not tx.is_recorded(f'"{a}"', besides=owner))
    return replace(accepted, addresses=tuple(mine))


def remove_unused(tx: Transaction, network: str, elements: Collection[Element] = ()) -> None:
    """Remove what only this network's last attachment needed, or the one that had these elements.

    So the kernel tracks no connections from the moment when nothing of ours needs that. The node's
    last attachment takes the tables along, whoever needed them.
    """
    parts = parts_needed(elements, masquerade=False)
    if tx.network(network) is not None and not tx.has_attachments(network):
        parts.add(MASQUERADE)
        tx.delete_network(network)
        _apply(tx)
    if parts:
        remove_unneeded(tx, parts)
    elif not tx.has_attachments():
        with suppress(KernelError):  # a kernel without nftables has none
            remove_unneeded(tx, parts)


def remove_unneeded(tx: Transaction, parts: Collection[str] = TRANSIENT) -> None:
    """Remove the tables if no attachment of the node is left; else those of these parts that cost
    all packets something, and that none needs."""
    if not tx.has_attachments() and not _foreign_links(tx):
        remove_empty_tables()
        return
    unneeded = [name for name in TRANSIENT if name in parts and not _is_needed(tx, name)]
    if unneeded:
        with open_nft() as nl:
            remove_empty_parts(nl, unneeded)


def _is_needed(tx: Transaction, part: str) -> bool:
    """Whether an attachment's record names a set of the part, or a network has prefixes.

    What is another store's is an element in the kernel, if nothing else.
    """
    if part == MASQUERADE and tx.networks():
        return True
    return any(tx.is_recorded(f'"set_name":"{a_set.name}"') for a_set in PARTS[part].sets)


def _groups(tx: Transaction) -> list[Masqueraded]:
    return [_load(record) for _network, record in sorted(tx.networks().items())]


def _foreign_groups(tx: Transaction) -> list[Masqueraded]:
    prefixes: dict[str, set[IPNetwork]] = {}
    for _link, mark in _foreign_links(tx):
        if mark.masquerade:
            known = prefixes.setdefault(mark.owner.network, set())
            known.update(address.network for address in mark.addresses)
    return [Masqueraded(tuple(sorted(prefixes[name], key=str))) for name in sorted(prefixes)]


def _foreign_links(tx: Transaction) -> list[tuple[Link, Mark]]:
    """Marked links of the node whose attachments are not in this store."""
    with open_netlink() as nl:
        found = marked_links(nl)
    return [(link, m) for link, m in found if tx.attachment(m.owner) is None]


def marked_links(nl: Netlink) -> list[tuple[Link, Mark]]:
    """The node's ends of all pairs with podwire's mark."""
    ends = (link for link in read_links(nl) if link.kind == "veth")
    found = ((link, parse_alias(link.alias)) for link in ends)
    return [(link, mark) for link, mark in found if mark]


@lru_cache(maxsize=64)
def _load(record: str | None) -> Masqueraded:
    raw = json.loads(record) if record else []
    lists = raw if isinstance(raw, dict) else {"prefixes": raw}
    return Masqueraded(**{key: tuple(map(ip_network, texts)) for key, texts in lists.items()})


def _dump(network: Masqueraded) -> str:
    prefixes, kept = ([*map(str, each)] for each in (network.prefixes, network.kept))
    return json.dumps({"prefixes": prefixes, "kept": kept} if kept else prefixes)
