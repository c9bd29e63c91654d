"""The verbs of `portmap`, for attachments that podwire or another plugin has made.

The attachment's record takes the mappings in. For an attachment of another plugin it is a record of
its own, and no more than what it lists is ever removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cni_plugin import network_rules as networks
from cni_plugin.attachment import DAMAGE, Record, dump_record, load_record
from cni_plugin.chained import pod_addresses, require_previous
from cni_plugin.errors import CHECK_FAILED, TRY_AGAIN, CniError
from cni_plugin.host import Call
from cni_plugin.host_ports import explain_conflict, refuse_reserved
from cni_plugin.names import host_link_name
from cni_plugin.plugins.portmap import plan_port_mappings
from cni_plugin.result import Result
from cni_plugin.store_access import (
    enter_own_store,
    open_node_store,
    stores_of_attachment,
    stores_of_node,
)
from ipam.errors import IpamError
from ipam.store import Owner, Store
from kernel.attach import KeyTaken, add_elements, check_rules
from kernel.describe import describe
from kernel.errors import KernelError
from kernel.forwarding import apply_node_settings
from kernel.model import Element, IPAddress, Link, Plan, Space, Sysctl
from kernel.netlink.socket import Netlink, open_netlink
from kernel.nftables.port_mappings import SETS, forget_datagrams
from kernel.nftables.set_messages import remove_elements
from kernel.nftables.table import open_nft
from kernel.paths import Packet, find_paths

_SETS = frozenset(a_set.name for a_set in SETS)


def add(call: Call) -> Result:
    """Map the ports, or change nothing. Raises CniError, IpamError or KernelError."""
    previous = require_previous(call)
    addresses = [address.ip for address in pod_addresses(call, previous)]
    if not call.conf.port_map.mappings or not addresses:
        return previous
    with open_netlink() as nl:
        link = _link_to(nl, addresses)
        elements, settings = plan_port_mappings(call.conf.port_map, link, addresses)
        if elements:
            enter_own_store(call)
            with open_node_store(call, stores_of_attachment(call)[0]) as store:
                _map(call, nl, store, link, elements, settings)
    return previous


def _link_to(nl: Netlink, addresses: list[IPAddress]) -> str:
    """The node's link that leads to the pod. Raises KernelError."""
    path = find_paths(nl, [Packet(addresses[0])])[0]
    if not path.link:
        raise KernelError("find the link to", str(addresses[0]), path.errno)
    return path.link


def _map(
    call: Call,
    nl: Netlink,
    store: Store,
    link: str,
    elements: tuple[Element, ...],
    settings: tuple[Sysctl, ...],
) -> None:
    refuse_reserved(elements)
    record = _extended(call, store, link, elements, settings)
    added: list[Element] = []
    try:
        networks.ensure_tables(store, ["inet"])
        add_elements(elements, added)
        forget_datagrams(elements)
        apply_node_settings(nl, settings)
    except KernelError as error:
        with open_nft() as nfnl:
            remove_elements(nfnl, _own(record, added))
        _reduce(store, call.owner)
        if isinstance(error, KeyTaken):
            raise explain_conflict(nl, store, record.plan) from error
        raise


def _extended(
    call: Call, store: Store, link: str, elements: tuple[Element, ...], settings: tuple[Sysctl, ...]
) -> Record:
    """The attachment's record with the mappings, written before the kernel is touched."""
    with store.transaction() as tx:
        text = tx.attachment(call.owner)
        record = _loaded(text) if text else _foreign(call, link)
        plan = record.plan
        node = replace(plan.node, sysctls=tuple(dict.fromkeys((*plan.node.sysctls, *settings))))
        plan = replace(
            plan, node=node, elements=tuple(dict.fromkeys((*_others(plan.elements), *elements)))
        )
        record = replace(record, plan=plan)
        tx.put_attachment(call.owner, dump_record(record))
    return record


def _loaded(text: str) -> Record:
    try:
        return load_record(text)
    except DAMAGE as error:
        msg = "the attachment's record was written by another version of podwire"
        raise CniError(TRY_AGAIN, msg, "recreate the pod") from error


def _foreign(call: Call, link: str) -> Record:
    owner = call.owner
    name = host_link_name(owner.network, owner.container_id, owner.ifname)
    plan = Plan(Space((Link(name),)), Space((Link(owner.ifname),)))
    return Record(plan, call.request.netns, call.request.pod, foreign=link)


def _others(elements: tuple[Element, ...]) -> tuple[Element, ...]:
    return tuple(element for element in elements if element.set_name not in _SETS)


def _own(record: Record, elements: Iterable[Element]) -> list[Element]:
    """Those that the mappings alone need; the others may be the attachment's own, too."""
    return [e for e in elements if e.set_name in _SETS or record.foreign]


def delete(call: Call) -> None:
    """Remove the attachment's mappings; success where there are none."""
    for folder in stores_of_attachment(call):
        with open_node_store(call, folder) as store:
            _unmap(store, call.owner)


def _unmap(store: Store, owner: Owner) -> None:
    with store.read() as tx:
        text = tx.attachment(owner)
    with suppress(*DAMAGE):
        record = load_record(text) if text else None
        mapped = _own(record, record.plan.elements) if record else []
        if mapped:
            with open_nft() as nl:
                remove_elements(nl, mapped)
            forget_datagrams(mapped)
            _reduce(store, owner)


def _reduce(store: Store, owner: Owner) -> None:
    """The record without the mappings; another plugin's attachment needs none then."""
    with store.transaction() as tx:
        text = tx.attachment(owner)
        if text is None:
            return
        record = _loaded(text)
        if record.foreign:
            tx.delete_attachment(owner)
            networks.remove_unused(tx, owner.network, had_rules=True)
            return
        plan = replace(record.plan, elements=_others(record.plan.elements))
        tx.put_attachment(owner, dump_record(replace(record, plan=plan)))


def check(call: Call) -> None:
    """Raise code 102 where the mappings are not as planned."""
    previous = require_previous(call)
    addresses = [address.ip for address in pod_addresses(call, previous)]
    if not call.conf.port_map.mappings or not addresses:
        return
    with open_netlink() as nl:
        link = _link_to(nl, addresses)
    elements, _settings = plan_port_mappings(call.conf.port_map, link, addresses)
    faults = [describe(change) for change in check_rules(elements)]
    if faults:
        who = call.request.pod or call.owner.container_id
        raise CniError(CHECK_FAILED, f"{who}: {faults[0]}", "; ".join(faults))


def collect(call: Call) -> None:
    """Remove the mappings of other plugins' attachments that the runtime does not list."""
    valid = call.conf.valid_attachments
    failures: list[str] = []
    for folder in stores_of_node(call) if valid is not None else ():
        failures += _collect(call, folder)
    if failures:
        raise CniError(TRY_AGAIN, "GC could not remove all port mappings", "; ".join(failures))


def _collect(call: Call, folder: Path) -> list[str]:
    valid = call.conf.valid_attachments or frozenset()
    failures: list[str] = []
    with open_node_store(call, folder) as store:
        with store.read() as tx:
            known = tx.attachments(call.conf.name)
        for owner, text in known:
            if (owner.container_id, owner.ifname) in valid or not _is_foreign(text):
                continue
            try:
                _unmap(store, owner)
            except (KernelError, IpamError) as error:
                failures.append(f"{owner.container_id} {owner.ifname}: {error}")
    return failures


def _is_foreign(text: str) -> bool:
    try:
        return bool(load_record(text).foreign)
    except DAMAGE:
        return False
