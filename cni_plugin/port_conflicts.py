"""Who has a port of the node that another pod asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

from cni_plugin.attachment import read_record
from cni_plugin.errors import PORT_TAKEN, TRY_AGAIN, CniError
from cni_plugin.host import Call
from cni_plugin.names import parse_alias
from cni_plugin.reclaim import reclaim
from ipam.store import Owner, Store, Transaction
from kernel.attach import KeyTaken
from kernel.describe import name_of
from kernel.model import Element, Plan
from kernel.netlink.socket import Netlink
from kernel.nftables.port_mappings import RESERVED, describe_port, is_reserved, pod_of
from kernel.nftables.set_messages import read_mapped, read_sets, remove_elements
from kernel.nftables.table import open_nft
from kernel.read import read_links

T = TypeVar("T")


def refuse_reserved(elements: Iterable[Element]) -> None:
    """Raise code 106 for mappings of ports that the daemon needs: they would have no effect."""
    with open_nft() as nl:
        reserved = read_sets(nl, (RESERVED,))
    ports = sorted({describe_port(e) for e in elements if is_reserved(e, reserved)})
    if ports:
        msg = f"host port {', '.join(ports)} is podwired's own on this node"
        hint = "use another hostPort: with this one a pod would receive other nodes' packets"
        raise CniError(PORT_TAKEN, msg, hint)


def retry_with_freed_ports(
    call: Call, nl: Netlink, store: Store, plan: Plan, act: Callable[[], T], error: KeyTaken
) -> T:
    """Act again once those ports are free that pods have which are gone.

    plan: that of the attachment. Raises CniError where there are none, or others are in the way.
    """
    if reclaim(store, call.log):
        with suppress(KeyTaken):
            return act()
    raise _explain(nl, store, plan) from error


def _explain(nl: Netlink, store: Store, plan: Plan) -> CniError:
    """The error for an attachment whose ports others have; mappings of no pod are removed."""
    desired = {e for e in plan.elements if e.data is not None}
    with open_nft() as nfnl, store.transaction() as tx:
        taken = read_mapped(nfnl, desired) - desired
        holders = {element: _holder(nl, tx, element) for element in sorted(taken, key=name_of)}
        remove_elements(nfnl, [element for element, holder in holders.items() if not holder])
    faults = [f"host port {describe_port(e)} is held by {who}" for e, who in holders.items() if who]
    if not faults:
        msg = "a port mapping that no pod had any more was in the way, and was removed"
        return CniError(TRY_AGAIN, msg, "try again")
    hint = "delete that pod first, or use another hostPort or hostIP"
    return CniError(PORT_TAKEN, "; ".join(faults), hint)


def _holder(nl: Netlink, tx: Transaction, element: Element) -> str:
    """The attachment that a mapping is of; empty where there is none."""
    for owner, text in tx.attachments():
        record = read_record(text)
        if record and element in record.whole.elements:
            return _describe(owner, record.pod)
    pod = pod_of(element)
    for link in read_links(nl):
        mark = parse_alias(link.alias)
        if mark and any(address.ip == pod for address in mark.addresses):
            return _describe(mark.owner, mark.pod)
    return ""


def _describe(owner: Owner, pod: str) -> str:
    return f"{pod or owner.container_id} ({owner.ifname} on {owner.network})"
