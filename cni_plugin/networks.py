"""Rules that all attachments of a network share: there from its first to its last attachment.

What should be in the kernel follows from the store alone, so whoever finds it different brings
it back, and a killed call leaves nothing that the next one does not see.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from ipaddress import ip_network

from cni_plugin.record import load_record
from ipam.store import Store, Transaction
from kernel.masquerade import apply_masquerade, masquerade_is_applied, remove_empty_tables
from kernel.model import Element, IPNetwork
from kernel.nft import add_elements, load_skeleton, open_nft, skeleton_is_present

Group = tuple[IPNetwork, ...]


def enter(tx: Transaction, network: str, prefixes: Group) -> None:
    """Note that the network's prefixes are masqueraded, in the attachment's own transaction."""
    known = _load(tx.network(network))
    wanted = tuple(dict.fromkeys((*known, *prefixes)))
    if wanted != known:
        tx.put_network(network, json.dumps([str(prefix) for prefix in wanted]))


def ensure_masquerade(store: Store) -> None:
    """Bring the kernel's masquerade rules to what the store says, if they differ."""
    with store.read() as tx:
        groups = _groups(tx)
    if not masquerade_is_applied(groups):
        # The write lock orders concurrent callers: each applies what the store says just then.
        with store.transaction() as tx:
            apply_masquerade(_groups(tx))


def ensure_tables(store: Store, families: Collection[str]) -> None:
    """Bring back these tables where somebody removed them, with the members of all attachments."""
    with open_nft() as nl:
        missing = [f for f in families if not skeleton_is_present(nl, f)]
        if not missing:
            return
        with store.transaction() as tx:
            for family in missing:
                load_skeleton(family)
            members = [e for _owner, text in tx.attachments() for e in _elements(text)]
            add_elements(nl, [e for e in members if e.family in missing])


def _elements(record: str) -> tuple[Element, ...]:
    try:
        return load_record(record).plan.elements
    except (ValueError, TypeError, KeyError):
        return ()


def leave(tx: Transaction, network: str, *, had_rules: bool) -> None:
    """Forget the network's rules with its last attachment, the tables with the node's last."""
    if tx.has_attachments(network):
        return
    if tx.network(network) is not None:
        had_rules = True
        tx.delete_network(network)
        apply_masquerade(_groups(tx))
    if had_rules and not tx.has_attachments():
        remove_empty_tables()


def _groups(tx: Transaction) -> list[Group]:
    return [_load(record) for _network, record in sorted(tx.networks().items())]


def _load(record: str | None) -> Group:
    return tuple(ip_network(prefix) for prefix in json.loads(record)) if record else ()
