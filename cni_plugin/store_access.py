"""The store, opened; where it was lost or damaged, filled again from the marks on links."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cni_plugin import network_rules as networks
from cni_plugin.attachment import dump_record
from cni_plugin.host import Call
from cni_plugin.removal import rebuild
from ipam.errors import AddressTaken
from ipam.store import Owner, Purged, Store, Transaction
from kernel.bridge import IsUsed
from kernel.model import IPAddress, IPInterface
from kernel.netlink.socket import open_netlink


@contextmanager
def open_node_store(call: Call) -> Iterator[Store]:
    """The store of this call's network. Raises StoreDamaged, StoreBusy or StoreError."""
    with call.host.open_store(call.ipam.data_dir(call), refill) as store:
        _log_purged(call, store)
        yield store


def _log_purged(call: Call, store: Store) -> None:
    purged, store.purged = store.purged, Purged()
    if purged.attachments or purged.allocations:
        call.log(
            f"the node was restarted: {purged.allocations} addresses and {purged.attachments}"
            " attachments of the earlier boot are free again"
        )


@contextmanager
def bridge_users(store: Store) -> Iterator[IsUsed]:
    """Whether attachments have a gateway; meanwhile no ADD can record another attachment."""
    with store.transaction() as tx:
        yield partial(is_gateway_used, tx)


def is_gateway_used(tx: Transaction, gateway: IPInterface) -> bool:
    """Whether the record of an attachment has the gateway, as JSON text."""
    return tx.is_recorded(f'"{gateway}"')


def refill(tx: Transaction) -> None:
    """Write what the marks on the node's links say into a new database."""
    with open_netlink() as nl:
        for link, mark in networks.marked_links(nl):
            owner = Owner(mark.network, mark.container_id, mark.ifname)
            record = rebuild(link, mark)
            tx.put_attachment(owner, dump_record(record))
            for address in () if mark.ipam else mark.addresses:
                _reserve(tx, owner, address.ip)
            if record.plan.masquerade:
                networks.add_prefixes(tx, mark.network, record.plan.masquerade)


def _reserve(tx: Transaction, owner: Owner, address: IPAddress) -> None:
    try:
        tx.reserve(owner, address)
    except AddressTaken as error:
        # Two pods with one address: neither may lose it, and an operator must decide.
        print(f"podwire: {owner} has the same address as another pod: {error}", file=sys.stderr)


def recover_store(folder: Path, log: Callable[[str], None]) -> None:
    """Replace a damaged podwire.db, which is kept, by one filled from the kernel, in one step."""
    from ipam.recovery import recover

    aside = recover(folder, refill)
    if aside is not None:
        log(
            f"podwire: {folder / 'podwire.db'} was damaged. It is kept as {aside}; the new one was"
            " filled from the kernel and from what could still be read. Addresses that podwire-ipam"
            " gave to another main plugin's pods may be missing: compare `podwire-ipam list`"
        )
