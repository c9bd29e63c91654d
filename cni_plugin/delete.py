"""DEL and GC: removal by the store's record, whatever else is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cni_plugin import network_rules as networks
from cni_plugin.attachment import CleanupRecord
from cni_plugin.errors import TRY_AGAIN, CniError
from cni_plugin.host import Call
from cni_plugin.ipam_client import ipam_of_record
from cni_plugin.masquerade_record import contains, single_ranges
from cni_plugin.removal import NodeLinks, find_cleanup_record, remove
from cni_plugin.result import canonical_mac
from cni_plugin.store_access import (
    knows,
    open_node_store,
    reservation_folders,
    stores_of_attachment,
    stores_of_node,
    tolerate_unwritable,
)
from ipam.errors import IpamError, StoreBusy, StoreError
from ipam.store import Owner, Store
from kernel.errors import KernelError
from kernel.model import IPAddress
from kernel.netlink.socket import Netlink, open_netlink
from kernel.netns import Namespace


def delete(call: Call) -> None:
    """Detach the pod; success where there is nothing to detach."""
    if call.parsed.fault is not None:
        call.log(f"the configuration is wrong ({call.parsed.fault}); deleting by record and name")
    with ExitStack() as resources:
        pod = resources.enter_context(call.open_pod_if_there())
        nl = resources.enter_context(open_netlink())
        if call.parsed.refusal and pod and not _is_known(call, nl):
            raise call.parsed.refusal
        for folder in stores_of_attachment(call):
            _with_store(call, folder, partial(_delete, call, nl, pod))


def _is_known(call: Call, nl: Netlink) -> bool:
    """Whether there is anything to remove in spite of a version that podwire does not speak."""
    in_stores = (knows(call, folder) for folder in stores_of_node(call))
    return bool(NodeLinks(nl).find(call.owner)) or any(in_stores)


def _with_store(call: Call, folder: Path, act: Callable[[Store | None], None]) -> None:
    """Call it with the folder's store; without one where that cannot be read or written."""
    without = partial(act, None)
    with tolerate_unwritable(call, without), open_node_store(call, folder) as store:
        act(store)


def _find(call: Call, nl: Netlink, store: Store | None, owner: Owner) -> CleanupRecord | None:
    """The attachment's record; one whose store is lost has by the configuration what it misses."""
    if store is None:
        record = find_cleanup_record(nl, None, owner)
    else:
        with store.read() as tx:
            record = find_cleanup_record(nl, tx, owner)
    if record and not record.complete and "firewall" in call.conf.features:
        from cni_plugin.plugins.firewall import native_acceptance

        accepted = native_acceptance(call.conf.features, record.addresses)
        return replace(record, acceptance=accepted)
    return record


def _delete(call: Call, nl: Netlink, pod: Namespace | None, store: Store | None) -> None:
    record = _find(call, nl, store, call.owner)
    if record is None or record.foreign:
        from cni_plugin.leftovers import remove_leftovers  # no attachment of podwire's needs it

        remove_leftovers(call, nl, call.owner, pod)
    if record is None and store:
        _delete_by_former_name(call, nl, pod, store)
    ipam = ipam_of_record(record.ipam) if record else call.ipam
    release = partial(ipam.run, "DEL", call)
    macs = partial(_previous_macs, call)
    remove(call.host, nl, store, call.owner, record, pod, macs, release)
    if record:
        _release_exported(call, record)


def _delete_by_former_name(call: Call, nl: Netlink, pod: Namespace | None, store: Store) -> None:
    """Remove what the container's interface has of another network.

    containerd deletes by the configuration that is there now, and the network may have had another
    name at ADD. Its addresses tell it from a network whose ADD failed, as the container had an
    interface of that name: DEL follows that, too.
    """
    with store.read() as tx:
        known = [owner for owner, _text in tx.attachments_beside(call.owner)]
    for owner in known:
        record = _find(call, nl, store, owner) if owner.ifname == call.owner.ifname else None
        if record and not record.foreign and _covers(call, record.addresses):
            release = partial(ipam_of_record(record.ipam).run, "DEL", call)
            remove(call.host, nl, store, owner, record, pod, release=release)
            call.log(f"removed its attachment to network {owner.network}")


def _covers(call: Call, addresses: Collection[IPAddress]) -> bool:
    """Whether the configuration's ranges have all of these addresses, and there are some."""
    with suppress(CniError):
        ranges, own = call.ipam.ranges(call), single_ranges(addresses)
        return bool(own) and all(any(contains(r, each) for r in ranges) for each in own)
    return False


def _release_exported(call: Call, record: CleanupRecord) -> None:
    """Release what `podwire-ipam export-host-local` reserved for the attachment."""
    places = (f"{folder}/{call.conf.name}" for folder in reservation_folders(call))
    if any(os.path.lexists(f"{place}/{a}") for place in places for a in record.addresses):
        from cni_plugin.leftovers import release_reservations

        release_reservations(call, call.conf.name, lambda owner: owner == call.owner)


def _previous_macs(call: Call) -> list[str]:
    """The pod's MAC that prevResult has: an attachment of another plugin, which podwire replaced
    under its pod, has no record."""
    with suppress(CniError):
        previous = call.previous()
        link = previous.of_pod(call.request.ifname) if previous else None
        return [canonical_mac(link.mac)] if link else []
    return []


def collect(call: Call) -> None:
    """GC: remove every attachment of the network that the runtime does not list.

    Without the list (a MUST of the runtime's, yet `cnitool gc` sends none) only those whose link
    is gone, and so their pod: taking all the others for stale would cut off pods that run.
    Goes on after a failure and reports all of them at the end.
    """
    failures: list[str] = []
    valid = call.conf.valid_attachments
    with open_netlink() as nl:
        for folder in stores_of_node(call):
            _with_store(call, folder, partial(_collect, call, nl, failures))
        if valid is not None:
            from cni_plugin.leftovers import collect_leftovers

            failures += collect_leftovers(call, nl, valid)
    try:
        call.ipam.run("GC", call)
    except CniError as error:
        failures.append(str(error))
    if failures:
        raise CniError(TRY_AGAIN, "GC could not remove everything", "; ".join(failures))


def _collect(call: Call, nl: Netlink, failures: list[str], store: Store | None) -> None:
    """Remove the stale ones that the store or marks name. Raises StoreError, but StoreBusy."""
    for owner in _stale(nl, store, call):
        try:
            record = _find(call, nl, store, owner)
            ipam = ipam_of_record(record.ipam if record else "")
            release = partial(ipam.run, "DEL", call, owner)
            remove(call.host, nl, store, owner, record, release=release)
            call.log(f"removed stale attachment {owner.container_id} {owner.ifname}")
        except (KernelError, IpamError, CniError) as error:
            if isinstance(error, StoreError) and not isinstance(error, StoreBusy):
                raise
            failures.append(f"{owner.container_id} {owner.ifname}: {error}")
    if store:
        _collect_rules(store, failures)


def _stale(nl: Netlink, store: Store | None, call: Call) -> list[Owner]:
    """Attachments that the store records, addresses' owners and marked links beyond the list."""
    network, valid = call.conf.name, call.conf.valid_attachments
    recorded: dict[Owner, str] = {}
    allocated: set[Owner] = set()
    if store:
        with store.read() as tx:
            recorded = dict(tx.attachments(network))
            allocated = {allocation.owner for allocation in tx.allocations(network)}
    links = NodeLinks(nl)
    if valid is None:
        gone = (owner for owner in recorded if not links.find(owner))
        return sorted(owner for owner in gone if not _is_other_plugins(recorded[owner]))
    every = recorded.keys() | allocated | links.owners(network)
    return sorted(every - valid)


def _is_other_plugins(text: str) -> bool:
    """Whether another plugin made the attachment, and its pod may be there still."""
    from cni_plugin.attachment import read_record
    from cni_plugin.reclaim import has_lost_namespace

    record = read_record(text)
    return record is not None and bool(record.foreign) and not has_lost_namespace(record.netns)


def _collect_rules(store: Store, failures: list[str]) -> None:
    try:
        networks.ensure_masquerade(store)
        with store.transaction() as tx:
            networks.remove_unneeded(tx)
    except (KernelError, StoreBusy) as error:
        failures.append(f"nftables rules: {error}")
