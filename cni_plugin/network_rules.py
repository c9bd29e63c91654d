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
from cni_plugin.names import Mark, owner_of, parse_alias
from ipam.store import Owner, Store, Transaction
from kernel.diff import Change
from kernel.model import Acceptance, ChainRules, Element, IPNetwork, Link
from kernel.netlink.socket import Netlink, open_netlink
from kernel.nftables import firewall
from kernel.nftables.generation import are_whole, note_whole, read_generation
from kernel.nftables.masquerade import (
    apply_masquerade,
    hairpin_element,
    masquerade_changes,
    remove_empty_tables,
)
from kernel.nftables.ruleset import TABLES, policy_parts
from kernel.nftables.set_messages import change_elements, remove_elements
from kernel.nftables.table import load, open_nft, table_changes
from kernel.read import read_links

Group = tuple[IPNetwork, ...]


def add_prefixes(tx: Transaction, network: str, prefixes: Group) -> None:
    """Record that the prefixes are masqueraded, in the attachment's own transaction."""
    known = _load(tx.network(network))
    desired = tuple(dict.fromkeys((*known, *prefixes)))
    if desired != known:
        tx.put_network(network, json.dumps([str(prefix) for prefix in desired]))


def ensure_masquerade(store: Store) -> tuple[Change[Element], ...]:
    """Make the kernel's masquerade elements those of the store; returns what differed."""
    with store.read() as tx:
        groups = _groups(tx)
    if not masquerade_changes(groups):
        return ()
    # The write lock orders concurrent callers: each applies what the store has just then.
    with store.transaction() as tx:
        changes = masquerade_changes(_groups(tx) + _foreign_groups(tx))
        _apply(tx)
    return changes


def masquerade_differs(tx: Transaction) -> bool:
    """Whether the kernel's masquerade elements are not those of the store and of marked links."""
    return bool(masquerade_changes(_groups(tx) + _foreign_groups(tx)))


def _apply(tx: Transaction) -> None:
    # Users of another store do not wait for this one's lock. They mark their link before they
    # apply, so a second read shows whether we removed what one of them has just added.
    applied: list[Group] | None = None
    while (desired := _groups(tx) + _foreign_groups(tx)) != applied:
        apply_masquerade(desired)
        applied = desired


def ensure_tables(store: Store, families: Collection[str]) -> list[Change[ChainRules]]:
    """Restore these tables where their rules differ, with the elements of all attachments.

    Returns what differed.
    """
    with open_nft() as nl:
        generation = read_generation(nl)
        if are_whole(generation, families):
            return []
        if not _broken(nl, families):
            note_whole(generation, families)
            return []
        with store.transaction() as tx:
            # Of many calls that wait for the lock, the first restores them.
            changes = _broken(nl, families)
            broken = {change.noun.family for change in changes}
            if broken:
                elements = [e for record in cleanup_records(tx) for e in record.elements]
                lost = [e for e in (*elements, *foreign_elements(tx)) if e.family in broken]
                load(*(TABLES[family] for family in sorted(broken)), *policy_parts(lost))
                change_elements(nl, lost, ())
    return changes


def _broken(nl: Netlink, families: Collection[str]) -> list[Change[ChainRules]]:
    return [change for family in families for change in table_changes(nl, TABLES[family])]


def cleanup_records(tx: Transaction, network: str | None = None) -> Iterator[CleanupRecord]:
    """The records of a network's attachments, or of all, that this version can read."""
    for _owner, text in tx.attachments(network):
        # One of another version needs what it needs at its own DEL.
        with suppress(*DAMAGE):
            yield load_cleanup_record(text)


def foreign_elements(tx: Transaction) -> list[Element]:
    """The hairpin elements of attachments whose record is in another store."""
    return [element for element, _index in indexed_foreign_elements(tx)]


def indexed_foreign_elements(tx: Transaction) -> list[tuple[Element, int]]:
    """The same, each with the index of its attachment's link."""
    found = _foreign_links(tx)
    return [(e, link.index) for link, mark in found for e in hairpin_elements(link, mark)]


def hairpin_elements(link: Link, mark: Mark) -> tuple[Element, ...]:
    """The hairpin elements that the attachment of a marked link has, or may have."""
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


def remove_unused(tx: Transaction, network: str, *, had_rules: bool) -> None:
    """Remove the network's rules with its last attachment, the tables with the node's last."""
    if tx.has_attachments(network):
        return
    if tx.network(network) is not None:
        had_rules = True
        tx.delete_network(network)
        _apply(tx)
    if had_rules:
        remove_unneeded(tx)


def remove_unneeded(tx: Transaction) -> None:
    """Remove the tables if no attachment of the node is left."""
    if not tx.has_attachments() and not _foreign_links(tx):
        remove_empty_tables()


def _groups(tx: Transaction) -> list[Group]:
    return [_load(record) for _network, record in sorted(tx.networks().items())]


def _foreign_groups(tx: Transaction) -> list[Group]:
    marks = (mark for _link, mark in _foreign_links(tx) if mark.masquerade)
    pairs = sorted((mark.network, str(a.network)) for mark in marks for a in mark.addresses)
    names = dict.fromkeys(network for network, _prefix in pairs)
    return [
        tuple(dict.fromkeys(ip_network(prefix) for network, prefix in pairs if network == name))
        for name in names
    ]


def _foreign_links(tx: Transaction) -> list[tuple[Link, Mark]]:
    """Marked links of the node whose attachments are not in this store."""
    with open_netlink() as nl:
        found = marked_links(nl)
    return [(link, m) for link, m in found if tx.attachment(owner_of(m)) is None]


def marked_links(nl: Netlink) -> list[tuple[Link, Mark]]:
    """The node's ends of all pairs with podwire's mark."""
    ends = (link for link in read_links(nl) if link.kind == "veth")
    found = ((link, parse_alias(link.alias)) for link in ends)
    return [(link, mark) for link, mark in found if mark]


@lru_cache(maxsize=64)
def _load(record: str | None) -> Group:
    return tuple(ip_network(prefix) for prefix in json.loads(record)) if record else ()
