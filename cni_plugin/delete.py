"""DEL and GC: removal by the store's record, whatever else is missing."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial

from cni_plugin import network_rules as networks
from cni_plugin.errors import TRY_AGAIN, CniError
from cni_plugin.host import Call
from cni_plugin.ipam_client import ipam_of_record
from cni_plugin.removal import find_cleanup_record, remove
from cni_plugin.result import parse_result
from cni_plugin.store_access import open_node_store
from ipam.errors import IpamError
from ipam.store import Owner, Store
from kernel.errors import KernelError, NotANamespace
from kernel.netlink.socket import Netlink, open_netlink
from kernel.netns import Namespace


def delete(call: Call) -> None:
    """Detach the pod; success where there is nothing to detach."""
    with ExitStack() as resources:
        pod = _open_pod(call, resources)
        nl = resources.enter_context(open_netlink())
        store = resources.enter_context(open_node_store(call))
        with store.read() as tx:
            record = find_cleanup_record(nl, tx, call.owner)
        if call.parsed.fault is not None:
            call.log(
                f"the configuration is wrong ({call.parsed.fault}); deleting by record and name"
            )
        ipam = ipam_of_record(record.ipam) if record else call.ipam
        release = partial(ipam.run, "DEL", call)
        macs = _previous_macs(call)
        remove(nl, store, call.owner, record, pod, macs, release, call.host.delete_link)


def _previous_macs(call: Call) -> list[str]:
    """The pod's MAC that prevResult has: an attachment of another plugin, which podwire replaced
    under its pod, has no record."""
    with suppress(CniError):
        found = parse_result(call.conf.prev_result or {}, call.version).interfaces
        return [i.mac.lower() for i in found if i.sandbox and i.name == call.request.ifname]
    return []


def _open_pod(call: Call, resources: ExitStack) -> Namespace | None:
    """The pod's namespace; None where it is gone, as it usually is when a pod goes."""
    if not call.request.netns:
        return None
    try:
        pod = resources.enter_context(call.host.open_netns(call.request.netns))
    except NotANamespace:
        return None
    return None if pod.is_current() else pod


def collect(call: Call) -> None:
    """GC: remove every attachment of the network that the runtime does not list.

    Without the list (a MUST of the runtime's, yet `cnitool gc` sends none) only those whose link
    is gone, and so their pod: taking all the others for stale would cut off pods that run.
    Goes on after a failure and reports all of them at the end.
    """
    valid = call.conf.valid_attachments
    failures: list[str] = []
    delete_link = call.host.delete_link
    with open_netlink() as nl, open_node_store(call) as store:
        for owner, links in _stale(nl, store, call.conf.name, valid):
            try:
                with store.read() as tx:
                    record = find_cleanup_record(nl, tx, owner)
                for link in links:
                    delete_link(nl, link)
                ipam = ipam_of_record(record.ipam if record else "")
                release = partial(ipam.run, "DEL", call, owner)
                remove(nl, store, owner, record, release=release, delete=delete_link)
                call.log(f"removed stale attachment {owner.container_id} {owner.ifname}")
            except (KernelError, IpamError, CniError) as error:
                failures.append(f"{owner.container_id} {owner.ifname}: {error}")
        _collect_rules(store, failures)
    try:
        call.ipam.run("GC", call)
    except CniError as error:
        failures.append(str(error))
    if failures:
        raise CniError(TRY_AGAIN, "GC could not remove everything", "; ".join(failures))


def _stale(
    nl: Netlink, store: Store, network: str, valid: frozenset[tuple[str, str]] | None
) -> list[tuple[Owner, list[str]]]:
    """Attachments that the store records, addresses' owners and marked links beyond the list.

    Each with the names of its links that are there: one may have been renamed by hand.
    """
    with store.read() as tx:
        owners: dict[Owner, list[str]] = {owner: [] for owner, _ in tx.attachments(network)}
        if valid is not None:
            owners |= {allocation.owner: [] for allocation in tx.allocations(network)}
    for link, mark in networks.marked_links(nl):
        if mark.network == network:
            owner = Owner(mark.network, mark.container_id, mark.ifname)
            owners.setdefault(owner, []).append(link.name)
    stale = (
        (owner, links)
        for owner, links in owners.items()
        if (not links if valid is None else (owner.container_id, owner.ifname) not in valid)
    )
    return sorted(stale)


def _collect_rules(store: Store, failures: list[str]) -> None:
    try:
        networks.ensure_masquerade(store)
    except (KernelError, IpamError) as error:
        failures.append(f"masquerade rules: {error}")
