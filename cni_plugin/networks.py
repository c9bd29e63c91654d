"""Rules that all attachments of a network share: there from its first to its last attachment.

What should be in the kernel follows from the store alone, so whoever finds it different brings
it back, and a killed call leaves nothing that the next one does not see.
"""

from __future__ import annotations

import json
from ipaddress import ip_network

from ipam.store import Store, Transaction
from kernel.masquerade import apply_masquerade, masquerade_is_applied, remove_empty_tables
from kernel.model import IPNetwork

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
