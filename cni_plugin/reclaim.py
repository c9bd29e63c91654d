"""What attachments have that ended without a DEL, in this boot.

A node that is a container itself (kind) loses its pods' namespaces when it is started anew, and the
boot ID stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cni_plugin import network_rules as networks
from cni_plugin.attachment import DAMAGE, CleanupRecord, Record, load_cleanup_record, read_record
from cni_plugin.removal import NodeLinks, links_besides
from cni_plugin.store_index import find_stores
from ipam.errors import IpamError
from ipam.files import Files
from ipam.store import Owner, Store, Transaction, open_store
from kernel.attach import delete_links
from kernel.conntrack import forget_pods
from kernel.errors import KernelError
from kernel.model import Element, IPAddress
from kernel.netlink.socket import Netlink, open_netlink
from kernel.nftables.port_mappings import pod_of
from kernel.nftables.set_messages import remove_elements
from kernel.nftables.table import open_nft

IN_FLIGHT = 120.0
"""Seconds after which an ADD is over, for kubelet waits two minutes."""


IsOver = Callable[[str, float], bool]
"""Whether an attachment without a link has ended, by its record and its age in seconds."""


def reclaim(store: Store, log: Callable[[str], None], is_over: IsOver | None = None) -> int:
    """Free what attachments have whose link is gone, and their pod; how many there were.

    The two ends of a pair vanish together. Where the pod's namespace is still there, an ADD
    may have written its record and be about to make the link. Raises KernelError, StoreError.
    """
    is_over = is_over or _is_over
    with store.read() as tx:
        ages = {a.owner: tx.clock.wall() - a.created_at for a in tx.allocations()}
        records = tx.attachments()
    # After the store was read: an ADD that has ended since has made its link.
    with open_netlink() as nl:
        links = NodeLinks(nl)
    gone = [
        (owner, record)
        for owner, record in records
        if not links.find(owner) and is_over(record, ages.get(owner, IN_FLIGHT))
    ]
    return _free(store, gone, log) if gone else 0


def reclaim_in_all_stores(own: Path, index: Path, log: Callable[[str], None]) -> None:
    """The same in every store of the node; one that cannot be used is logged."""
    for folder in find_stores(index, own):
        if Files(folder).database.exists():
            try:
                with open_store(folder, create=False) as store:
                    reclaim(store, log)
            except (IpamError, KernelError) as error:
                log(f"addresses of pods that are gone were not searched for: {error}")


def reclaim_vanished(own: Path, index: Path, log: Callable[[str], None], patience: float) -> int:
    """The same in every store, where the pod's namespace is seen to be gone as well; how many.

    A DEL that could not write its store has removed the rest. A store that cannot be used is left
    for the next time. patience: seconds to wait for one that others lock.
    """
    freed = 0
    for folder in find_stores(index, own):
        opened = open_store(folder, create=False, patience=patience)
        with suppress(IpamError, KernelError), opened as store:
            freed += reclaim(store, log, _has_vanished)
    return freed


def _has_vanished(text: str, _age: float) -> bool:
    record = read_record(text)
    return record is not None and has_vanished(record)


def has_vanished(record: Record) -> bool:
    """Whether the pod of an attachment without a link is gone, and podwire may free the rest.

    Of another IPAM plugin's addresses it may not: that is executed with the configuration of a
    call.
    """
    return not record.ipam and has_lost_namespace(record.netns)


def _is_over(text: str, age: float) -> bool:
    record = read_record(text)
    if record is None:
        return age >= IN_FLIGHT
    if record.foreign:  # its link has a name that podwire does not know
        return has_lost_namespace(record.netns)
    # Another IPAM plugin must be executed, with the network's configuration.
    return not record.ipam and (age >= IN_FLIGHT or has_lost_namespace(record.netns))


def has_lost_namespace(netns: str) -> bool:
    """Whether the pod's namespace, by its path, is gone.

    Where the folder of the namespaces is not there either, this process cannot see them.
    """
    return os.path.isdir(os.path.dirname(netns)) and not _is_namespace(netns)


def _is_namespace(path: str) -> bool:
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except (OSError, ValueError):
        return False


def _free(store: Store, gone: list[tuple[Owner, str]], log: Callable[[str], None]) -> int:
    with open_nft() as nl, store.transaction() as tx:
        same = [(owner, record) for owner, record in gone if tx.attachment(owner) == record]
        forgotten: set[IPAddress] = set()
        elements: list[Element] = []
        for owner, record in same:
            with suppress(*DAMAGE):  # one of another version
                cleanup = load_cleanup_record(record)
                _remove_rest(nl, tx, owner, cleanup)
                elements += cleanup.elements
            addresses = tx.release(owner)
            forgotten.update(addresses)
            tx.delete_attachment(owner)
            log(f"{owner} is gone without a DEL; freed {', '.join(map(str, addresses))}")
        forget_pods(forgotten.union(filter(None, map(pod_of, elements))))
        for owner, record in same:
            if '"data":' in record:
                from cni_plugin.port_conflicts import pass_on, recorded_mappings

                pass_on(tx, owner, recorded_mappings(record), elements)
        for network in sorted({owner.network for owner, _record in same}):
            networks.remove_unused(tx, network, elements, forgotten)
    return len(same)


def _remove_rest(nl: Netlink, tx: Transaction, owner: Owner, record: CleanupRecord) -> None:
    """What the pair did not take along."""
    remove_elements(nl, [e for e in record.elements if not networks.is_others(tx, owner, e)])
    if record.acceptance:
        from kernel.acceptance import withdraw  # few networks need it

        withdraw(networks.own_acceptance(tx, owner, record.acceptance))
    if record.links:
        with open_netlink() as links:
            names = links_besides(links, owner, record)
            if names:
                delete_links(links, names)
