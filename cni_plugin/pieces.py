"""The verbs of a plugin that adds a piece to the plan of an attachment.

The piece is part of the attachment's record, from before the kernel is changed until after it is
changed back. Another plugin's attachment gets a record of its own for the pieces, and no more than
what these list is ever removed. Several plugins of a chain add to one record; the DEL of each takes
its own piece away, that of the main plugin, which comes last, whatever is left.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cni_plugin import network_rules as networks
from cni_plugin.attachment import Record, bare_plan, dump_record, read_record, with_share
from cni_plugin.chained import link_to_pod, require_previous
from cni_plugin.errors import CHECK_FAILED, TRY_AGAIN, CniError
from cni_plugin.host import Call
from cni_plugin.names import host_link_name, link_local
from cni_plugin.result import Interface, Result
from cni_plugin.store_access import (
    begin_transaction,
    enter_own_store,
    open_node_store,
    stores_of_attachment,
    stores_of_node,
    tolerate_unwritable,
)
from ipam.errors import IpamError
from ipam.store import Owner, Store, read_store
from kernel.attach import KeyTaken, run_in
from kernel.describe import describe
from kernel.errors import KernelError
from kernel.model import Link, Piece, Space
from kernel.netlink.socket import Netlink, open_netlink
from kernel.netns import Namespace
from kernel.nftables.port_mappings import mappings_of
from kernel.pieces import apply_piece, check_piece, remove_piece
from kernel.read import read_link

PlanPiece = Callable[[Call, Netlink, Result], Piece | None]
"""A plugin's piece of a call's attachment; None where the configuration asks for nothing.

The socket is the node's, the result that of the plugins before. Raises CniError, KernelError.
"""


def add(plan: PlanPiece, name: str, call: Call) -> Result:
    """Add the piece, or change nothing. Raises CniError, IpamError or KernelError.

    name: the plugin's.
    """
    previous = require_previous(call)
    with open_netlink() as nl:
        piece = plan(call, nl, previous)
        if piece is None:
            return previous
        enter_own_store(call)
        folder = stores_of_attachment(call)[0]
        with _pod_of(call, piece) as pod, open_node_store(call, folder) as store:
            # Of an ADD that is repeated, or of an entry before of the same plugin: what that gave
            # to the pod stays in the piece.
            record = _remove(call, nl, store, call.owner, name, pod)
            earlier = record.piece(name) if record else None
            if earlier:
                piece = replace(piece, pod=with_share(earlier.pod, piece.pod))
            piece = _with_original(pod, piece)
            _add(call, nl, pod, store, piece, previous)
    return _changed(previous, call.request.ifname, piece)


def _pod_of(call: Call, piece: Piece) -> AbstractContextManager[Namespace | None]:
    """The pod's namespace, where the piece has a share in it."""
    return nullcontext() if piece.pod == Space() else call.open_pod()


def _with_original(pod: Namespace | None, piece: Piece) -> Piece:
    """The piece with the pod's link as it is before it is changed."""
    if pod is None or not piece.pod.links:
        return piece
    name = piece.pod.links[0].name
    with run_in(pod) as nl:
        return replace(piece, original=read_link(nl, name))


def _add(
    call: Call,
    nl: Netlink,
    pod: Namespace | None,
    store: Store,
    piece: Piece,
    previous: Result,
) -> None:
    if mappings_of(piece.elements):
        from cni_plugin.port_conflicts import refuse_reserved

        refuse_reserved(piece.elements)
    record = _extended(call, nl, store, piece, previous)
    piece = record.pieces[-1]
    act = partial(apply_piece, nl, pod, piece, record.elements_beside(piece.name))
    try:
        networks.ensure_parts(store, networks.parts_needed(piece.elements, masquerade=False))
        try:
            act()
        except KeyTaken as error:
            from cni_plugin.port_conflicts import retry_with_freed_ports  # rarely needed

            retry_with_freed_ports(call, nl, store, record.whole, act, error)
    except BaseException:
        _withdraw(store, call.owner, piece)
        raise


def _with_mac_allowed(record: Record, piece: Piece) -> Piece:
    """The piece, and what the MAC that it gives the pod needs where podwire checks the MAC."""
    mac = piece.pod.links[0].mac if piece.pod.links else None
    if not mac:
        return piece
    from kernel.nftables.spoof_check import other_mac_elements

    plan = record.plan
    more = other_mac_elements(plan.elements, plan.node.links[0].name, mac, link_local(mac))
    return replace(piece, elements=(*piece.elements, *more))


def _extended(call: Call, nl: Netlink, store: Store, piece: Piece, previous: Result) -> Record:
    """The attachment's record with the piece, written before the kernel is changed."""
    with store.transaction() as tx:
        text = tx.attachment(call.owner)
        record = _loaded(text) if text else _foreign(call, nl, previous)
        piece = _with_mac_allowed(record, piece)
        if mappings_of(piece.elements):
            from cni_plugin.port_conflicts import without_taken

            piece = without_taken(tx, call.owner, piece)
        record = replace(record, pieces=(*record.pieces, piece))
        tx.put_attachment(call.owner, dump_record(record))
    return record


def _loaded(text: str) -> Record:
    record = read_record(text)
    if record is None:
        msg = "the attachment's record was written by another version of podwire"
        raise CniError(TRY_AGAIN, msg, "recreate the pod")
    return record


def _foreign(call: Call, nl: Netlink, previous: Result) -> Record:
    owner, link = call.owner, _NO_LINK
    with suppress(KernelError):
        link = link_to_pod(nl, previous.addresses_of_pod(owner.ifname)) or link
    plan = bare_plan(Link(host_link_name(owner)), owner.ifname)
    return Record(plan, call.request.netns, call.request.pod, foreign=link)


_NO_LINK = "/"
"""For an attachment that no address leads to; no link can have this name."""


def _changed(previous: Result, ifname: str, piece: Piece) -> Result:
    """The result with the node's links of the piece, and the MAC and MTU of the pod's link."""
    more = tuple(Interface(link.name, link.mac or "") for link in piece.node.links)
    previous = replace(previous, interfaces=(*previous.interfaces, *more))
    if not piece.pod.links:
        return previous
    link = piece.pod.links[0]
    interfaces = tuple(
        replace(i, mac=link.mac or i.mac, mtu=(link.mtu or i.mtu) if i.mtu else 0)
        if i.name == ifname and i.sandbox
        else i
        for i in previous.interfaces
    )
    return replace(previous, interfaces=interfaces)


def delete(_plan: PlanPiece, name: str, call: Call) -> None:
    """Take the plugin's piece away; success where there is none."""
    with open_netlink() as nl, call.open_pod_if_there() as pod:
        is_own = False
        for folder in stores_of_attachment(call):
            with tolerate_unwritable(call), open_node_store(call, folder) as store:
                record = _remove(call, nl, store, call.owner, name, pod)
                is_own |= record is not None and not record.foreign
        if not is_own:
            from cni_plugin.leftovers import remove_leftovers_of  # none of podwire's needs it

            remove_leftovers_of(name, call, nl)


def _remove(
    call: Call, nl: Netlink, store: Store, owner: Owner, name: str, pod: Namespace | None = None
) -> Record | None:
    """Remove the piece; the attachment's record before, if it has one."""
    with store.read() as tx:
        text = tx.attachment(owner)
    record = read_record(text) if text else None
    piece = record.piece(name) if record else None
    if record and piece:
        shared, delete = record.elements_beside(name), call.host.delete_links
        remove_piece(nl, pod, _own(store, owner, piece), shared, delete)
        _withdraw(store, owner, piece)
    return record


def _own(store: Store, owner: Owner, piece: Piece) -> Piece:
    """The piece without acceptance of addresses that another attachment has by now."""
    if not piece.acceptance:
        return piece
    with store.read() as tx:
        accepted = networks.own_acceptance(tx, owner, piece.acceptance)
    return replace(piece, acceptance=accepted)


def _withdraw(store: Store, owner: Owner, removed: Piece) -> None:
    """The record without the piece, which the kernel has no more; another plugin's attachment needs
    none without pieces."""
    name = removed.name
    with begin_transaction(store, mappings_of(removed.elements)) as tx:
        text = tx.attachment(owner)
        if text is None:
            return
        record = _loaded(text)
        piece, rest = record.piece(name), tuple(p for p in record.pieces if p.name != name)
        if piece:
            networks.remove_policies(tx, owner, piece.elements)
        if rest or not record.foreign:
            tx.put_attachment(owner, dump_record(replace(record, pieces=rest)))
        else:
            tx.delete_attachment(owner)
        if piece and mappings_of(piece.elements):
            from cni_plugin.port_conflicts import pass_on

            pass_on(tx, owner, {*piece.elements} - record.elements_beside(name), removed.elements)
        networks.remove_unused(tx, owner.network, piece.elements if piece else ())


def check(plan: PlanPiece, _name: str, call: Call) -> None:
    """Raise code 102 where the kernel differs from the piece."""
    previous = require_previous(call)
    with open_netlink() as nl:
        piece = plan(call, nl, previous)
        if piece is None:
            return
        piece = _without_waiting(call, piece)
        with _pod_of(call, piece) as pod:
            faults = [describe(change, where) for where, change in check_piece(nl, pod, piece)]
    if faults:
        who = call.request.pod or call.owner.container_id
        raise CniError(CHECK_FAILED, f"{who}: {faults[0]}", "; ".join(faults))


def _without_waiting(call: Call, piece: Piece) -> Piece:
    """The piece without mappings that another attachment of the container has."""
    if not mappings_of(piece.elements):
        return piece
    texts = (
        read_store(f, lambda tx: tx.attachment(call.owner)) for f in stores_of_attachment(call)
    )
    records = (read_record(text) for text in texts if text)
    waiting = {e for record in records if record for p in record.pieces for e in p.waiting}
    return replace(piece, elements=tuple(e for e in piece.elements if e not in waiting))


def collect(_plan: PlanPiece, name: str, call: Call) -> None:
    """Take the piece from other plugins' attachments that the runtime does not list.

    Those of podwire's own are their main plugin's to collect.
    """
    failures: list[str] = []
    if call.conf.valid_attachments is not None:
        with open_netlink() as nl:
            for folder in stores_of_node(call):
                failures += _collect(call, nl, folder, name)
    if failures:
        raise CniError(TRY_AGAIN, "GC could not remove everything", "; ".join(failures))


def _collect(call: Call, nl: Netlink, folder: Path, name: str) -> list[str]:
    valid = call.conf.valid_attachments or frozenset()
    failures: list[str] = []
    with open_node_store(call, folder) as store:
        with store.read() as tx:
            known = tx.attachments(call.conf.name)
        for owner, text in known:
            record = read_record(text)
            if owner in valid or not (record and record.foreign):
                continue
            try:
                _remove(call, nl, store, owner, name)
            except (KernelError, IpamError) as error:
                failures.append(f"{owner.container_id} {owner.ifname}: {error}")
    return failures
