"""The verbs of podwire-ipam, the IPAM plugin that any main plugin can delegate to."""

from __future__ import annotations

import os
from collections.abc import Callable

from cni_plugin.errors import ALREADY_ATTACHED, CHECK_FAILED, CniError
from cni_plugin.host import Call
from cni_plugin.ipam_client import OwnIpam
from cni_plugin.result import Result
from cni_plugin.store_access import (
    enter_own_store,
    open_node_store,
    reservation_folders,
    stores_of_attachment,
    stores_of_node,
    tolerate_unwritable,
)
from ipam.transaction import Owner

_IPAM = OwnIpam()


def add(call: Call) -> Result:
    """Allocate. An attachment that has addresses is refused, as `host-local` does.

    A main plugin that failed for a duplicate would DEL, and free the addresses of a live pod.
    """
    conf = _IPAM.read_conf(call)
    enter_own_store(call)
    with open_node_store(call) as store, store.transaction() as tx:
        allocated = tx.addresses(call.owner)
        if allocated:
            msg = f"{call.owner.container_id} {call.owner.ifname} has {allocated[0]} already"
            raise CniError(ALREADY_ATTACHED, msg, "duplicate allocation is not allowed; DEL first")
        return _IPAM.allocate(conf, call, tx)


def delete(call: Call) -> None:
    """Release; success where nothing is allocated."""
    for folder in stores_of_attachment(call):
        with (
            tolerate_unwritable(call),
            open_node_store(call, folder) as store,
            store.transaction() as tx,
        ):
            tx.release(call.owner)
    _release_reservations(call, lambda owner: owner == call.owner)


def check(call: Call) -> None:
    """Raise code 102 where no address is allocated to the attachment, or none of prevResult's."""
    with open_node_store(call, stores_of_attachment(call)[0]) as store, store.read() as tx:
        allocated = set(tx.addresses(call.owner))
    previous = call.previous()
    expected = [ip.address.ip for ip in previous.ips] if previous else []
    lost = [str(ip) for ip in expected if ip not in allocated]
    if not allocated or len(lost) == len(expected) > 0:
        what = ", ".join(lost) or "any address"
        msg = f"{call.owner.container_id} {call.owner.ifname} does not have {what}"
        raise CniError(CHECK_FAILED, msg, "the allocation is lost: another pod may be given it")


def collect(call: Call) -> None:
    """Release what is allocated to attachments that the runtime does not list."""
    valid = call.conf.valid_attachments
    if valid is None:
        call.log("GC without cni.dev/valid-attachments: no attachment is known to be stale")
        return
    for folder in stores_of_node(call):
        with open_node_store(call, folder) as store, store.transaction() as tx:
            owners = {allocation.owner for allocation in tx.allocations(call.conf.name)}
            for owner in owners:
                if owner not in valid:
                    tx.release(owner)
                    call.log(f"released the addresses of {owner.container_id} {owner.ifname}")
    _release_reservations(call, lambda owner: owner not in valid)


def _release_reservations(call: Call, is_over: Callable[[Owner], bool]) -> None:
    """Release what the reference plugin reserved, on a node where it has served the network."""
    if not any(os.path.isdir(f"{f}/{call.conf.name}") for f in reservation_folders(call)):
        return
    from cni_plugin.leftovers import release_reservations

    for text in release_reservations(call, call.conf.name, is_over):
        call.log(f"released the {text}")


def status(call: Call) -> None:
    """Raise code 50 where a range is full."""
    _IPAM.validate(call)
    with open_node_store(call) as store, store.transaction() as tx:
        _IPAM.require_space(call, tx)
