"""Who has a port of the node that an attachment asks for.

Runtimes pass a container's ports to each of its networks. The first attachment that asks for a port
has it; at the others of the container it waits, and is passed on when the first one goes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from cni_plugin.attachment import (
    DAMAGE,
    Record,
    dump_record,
    load_cleanup_record,
    read_record,
)
from cni_plugin.errors import PORT_TAKEN, TRY_AGAIN, CniError
from cni_plugin.host import Call
from cni_plugin.names import parse_alias
from cni_plugin.reclaim import reclaim
from ipam.store import Owner, Store, Transaction
from kernel.attach import KeyTaken, add_elements
from kernel.describe import name_of
from kernel.model import Element, Piece, Plan
from kernel.netlink.socket import Netlink
from kernel.nftables.port_mappings import (
    RESERVED,
    describe_port,
    forget_datagrams,
    is_reserved,
    mappings_of,
    pod_of,
)
from kernel.nftables.set_messages import read_mapped, read_sets, remove_elements
from kernel.nftables.table import open_nft
from kernel.read import read_links

T = TypeVar("T")
Share = TypeVar("Share", Plan, Piece)


def without_taken(tx: Transaction, owner: Owner, share: Share) -> Share:
    """The share of an attachment; mappings that another one of its container has wait."""
    mappings = mappings_of(share.elements)
    if not mappings:
        return share
    others = (recorded_mappings(text) for _owner, text in tx.attachments_beside(owner))
    taken = {_key(e) for each in others for e in each}
    waiting = {e for e in mappings if _key(e) in taken}
    kept = tuple(e for e in share.elements if e not in waiting)
    return replace(share, elements=kept, waiting=tuple(e for e in mappings if e in waiting))


def pass_on(
    tx: Transaction, owner: Owner, had: Iterable[Element], removed: Collection[Element]
) -> None:
    """Lead the ports of an attachment that goes to another one of its container where they wait.

    had: the elements of its record. removed: those that are not in the kernel any more; others were
    passed to it since, and go now. To be called in the transaction that takes them from the record.
    Raises KernelError.
    """
    gone = mappings_of(had)
    if not gone:
        return
    with open_nft() as nl:
        remove_elements(nl, {*gone}.difference(removed))
        freed = {_key(e) for e in gone}
        for other, text in tx.attachments_beside(owner):
            record = read_record(text)
            waiting = _waiting(record) if record else []
            moved = {e for e in waiting if _key(e) in freed}
            moved -= {e for e in moved if read_mapped(nl, [e]) - {e}}  # another pod was faster
            if record and moved:
                tx.put_attachment(other, dump_record(_with_passed(record, moved)))
                add_elements(tuple(moved), [])
                forget_datagrams(moved)
                freed -= {_key(e) for e in moved}


def recorded_mappings(text: str) -> list[Element]:
    """The mappings that an attachment has by its record; none where another version wrote it."""
    try:
        return mappings_of(load_cleanup_record(text).elements)
    except DAMAGE:
        return []


def has_been_passed_ports(text: str, before: str) -> bool:
    """Whether a record is the one before, with ports that waited and were passed to it since."""
    record, earlier = read_record(text), read_record(before)
    if record is None or earlier is None:
        return False
    passed = {*_waiting(earlier)}.difference(_waiting(record))
    return bool(passed) and dump_record(_with_passed(earlier, passed)) == text


def _key(mapping: Element) -> Element:
    return replace(mapping, data=None)


def _waiting(record: Record) -> list[Element]:
    shares: tuple[Plan | Piece, ...] = (record.plan, *record.pieces)
    return [element for share in shares for element in share.waiting]


def _with_passed(record: Record, moved: Collection[Element]) -> Record:
    pieces = tuple(_with_share_passed(piece, moved) for piece in record.pieces)
    return replace(record, plan=_with_share_passed(record.plan, moved), pieces=pieces)


def _with_share_passed(share: Share, moved: Collection[Element]) -> Share:
    elements = (*share.elements, *(e for e in share.waiting if e in moved))
    waiting = tuple(e for e in share.waiting if e not in moved)
    return replace(share, elements=elements, waiting=waiting)


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
