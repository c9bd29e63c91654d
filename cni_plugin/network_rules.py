"""Rules that all attachments of a network share: there from its first to its last attachment.

What should be in the kernel follows from the store, and from the marks of links whose records are
in another one (`dataDir` is each network's own), so every call that finds it different restores it,
and the next call repairs what a killed one left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from cni_plugin.attachment import DAMAGE, CleanupRecord, load_cleanup_record, read_record
from cni_plugin.masquerade_record import Prefixes, dump, extend_sources, load, single_ranges
from cni_plugin.names import Mark, parse_alias
from ipam.store import Owner, Store, Transaction
from kernel.diff import Change
from kernel.errors import KernelError
from kernel.model import Acceptance, ChainRules, Element, IPAddress, IPInterface, Link, Sysctl
from kernel.netlink.socket import Netlink, open_netlink
from kernel.nftables import firewall
from kernel.nftables.generation import read_generation
from kernel.nftables.masquerade import (
    AddressRange,
    Masqueraded,
    apply_masquerade,
    hairpin_element,
    is_masqueraded,
    masquerade_changes,
    read_kept,
)
from kernel.nftables.port_mappings import forget_datagrams, links_of_loopback, route_localnet
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
from kernel.sysctl import apply_sysctl, read_sysctl


def add_prefixes(
    tx: Transaction,
    network: str,
    prefixes: Prefixes,
    sources: Iterable[AddressRange],
    kept: Prefixes | None = None,
) -> None:
    """Record that these sources are masqueraded beyond the prefixes, in the attachment's own
    transaction.

    kept: where packets of the network keep their address; None for what the kernel has, where that
    is not recorded.
    """
    known = load(tx.network(network))
    desired = tuple(dict.fromkeys((*known.prefixes, *prefixes)))
    if kept is None:
        kept = known.kept or read_kept(desired)
    pods = partial(_addresses_of_pods, tx, network)
    fresh = Masqueraded(desired, kept, extend_sources(known, prefixes, tuple(sources), pods))
    if fresh != known:
        tx.put_network(network, dump(fresh))


def limit_masquerade(tx: Transaction, network: str) -> None:
    """Masquerade of a network the pods alone that were made so: it is off for those that come."""
    record = tx.network(network)
    known = load(record) if record else None
    if known is None or _are_single(known.sources):
        return
    records = (read_record(text) for _owner, text in tx.attachments(network))
    made = (each.plan for each in records if each and each.plan.masquerade)
    addresses = (a.address.ip for plan in made for a in plan.pod.addresses)
    _put_sources(tx, network, known, single_ranges(addresses))
    if tx.network(network) is None:
        remove_unneeded(tx, (MASQUERADE,))


def _are_single(sources: Iterable[AddressRange] | None) -> bool:
    return sources is not None and all(first == last for first, last in sources)


def _put_sources(
    tx: Transaction, network: str, known: Masqueraded, sources: tuple[AddressRange, ...]
) -> None:
    """Record these sources of a network, and apply them; without any it is not masqueraded."""
    if sources:
        tx.put_network(network, dump(replace(known, sources=sources)))
    else:
        tx.delete_network(network)
    _apply(tx)


def _addresses_of_pods(tx: Transaction, network: str) -> list[IPAddress]:
    records = (record for owner, record in cleanup_records(tx) if owner.network == network)
    return [address for record in records for address in record.addresses]


def masqueraded(
    tx: Transaction, network: str, prefixes: Prefixes, addresses: Iterable[IPAddress]
) -> list[Masqueraded]:
    """The share of an attachment with these addresses in what is masqueraded of its network."""
    if not prefixes:
        return []
    known = load(tx.network(network))
    sources = None if known.sources is None else single_ranges(addresses)
    return [Masqueraded(prefixes, known.kept, sources)]


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
        restored: list[Element] = []
        with store.transaction() as tx:
            # Of many calls that wait for the lock, the first restores them.
            changes = {name: table_changes(nl, PARTS[name]) for name in parts}
            broken = {name for name, found in changes.items() if found}
            if broken:
                load_parts(nl, broken)
                elements = [e for _owner, record in cleanup_records(tx) for e in record.elements]
                elements += [element for element, _index in foreign_elements(tx)]
                restored = [e for e in elements if part_of(e) in broken]
                change_elements(nl, restored, ())
    # What was sent to a mapped port meanwhile is tracked as the node's own.
    forget_datagrams(restored)
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


def remove_unused(
    tx: Transaction,
    network: str,
    elements: Collection[Element] = (),
    addresses: Collection[IPAddress] = (),
) -> None:
    """Remove what only this network's last attachment needed, or those that had these elements and
    addresses.

    So the kernel tracks no connections from the moment when nothing of ours needs that. The node's
    last attachment takes the tables along, whoever needed them.
    """
    _close_loopback(tx, elements)
    parts = parts_needed(elements, masquerade=False)
    record = tx.network(network)
    if record is not None and not tx.has_attachments(network):
        parts.add(MASQUERADE)
        tx.delete_network(network)
        _apply(tx)
    elif record is not None:
        _remove_sources(tx, network, load(record), addresses)
        parts |= set() if tx.network(network) else {MASQUERADE}
    if parts:
        remove_unneeded(tx, parts)
    elif not tx.has_attachments():
        with suppress(KernelError):  # a kernel without nftables has none
            remove_unneeded(tx, parts)


def _close_loopback(tx: Transaction, elements: Iterable[Element]) -> None:
    """Set back what opened links to the node's loopback, before the rule goes that guards it.

    A bridge outlives its pods.
    """
    for path in map(route_localnet, links_of_loopback(elements)):
        if read_sysctl(path) == "1" and not tx.is_recorded(f'"{path}"'):
            apply_sysctl(Sysctl(path, "0", required=False))


def _remove_sources(
    tx: Transaction, network: str, known: Masqueraded, addresses: Iterable[IPAddress]
) -> None:
    """Remove those addresses that no range of the network has, unless a pod has them by now."""
    gone = set(single_ranges(addresses)).intersection(known.sources or ())
    gone = {each for each in gone if not tx.is_recorded(f'"address":"{each[0]}/')}
    if gone:
        left = tuple(each for each in known.sources or () if each not in gone)
        _put_sources(tx, network, known, left)


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
    return [load(record) for _network, record in sorted(tx.networks().items())]


def _foreign_groups(tx: Transaction) -> list[Masqueraded]:
    found: dict[str, set[IPInterface]] = {}
    for _link, mark in _foreign_links(tx):
        if mark.masquerade:
            found.setdefault(mark.owner.network, set()).update(mark.addresses)
    return [_masqueraded_pods(found[name]) for name in sorted(found)]


def _masqueraded_pods(addresses: Iterable[IPInterface]) -> Masqueraded:
    known = sorted(addresses, key=str)
    prefixes = tuple(dict.fromkeys(address.network for address in known))
    return Masqueraded(prefixes, sources=single_ranges(address.ip for address in known))


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
