"""Removal of an attachment: the same for DEL, GC and a failed ADD, without netns or config."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext

from cni_plugin import network_rules as networks
from cni_plugin.attachment import (
    DAMAGE,
    CleanupRecord,
    Record,
    bare_plan,
    cleanup_record_of,
    load_cleanup_record,
    read_record,
)
from cni_plugin.host import Host
from cni_plugin.names import (
    Mark,
    host_link_name,
    ifb_name,
    is_marked,
    node_mac,
    parse_alias,
    pod_mac,
)
from cni_plugin.store_access import begin_transaction
from ipam.errors import StoreBusy, StoreDamaged, StoreError
from ipam.store import Owner, Store, Transaction
from kernel.attach import delete_pod_link
from kernel.bridge import remove_unused_bridge
from kernel.model import Acceptance, Element, IPAddress, Link
from kernel.netlink.socket import Netlink
from kernel.netns import Namespace
from kernel.nftables import firewall
from kernel.nftables.masquerade import hairpin_address
from kernel.nftables.port_mappings import mappings_of, pod_of
from kernel.nftables.set_messages import remove_elements
from kernel.nftables.spoof_check import checks_of
from kernel.nftables.table import open_nft
from kernel.read import read_link, read_links


def find_record(nl: Netlink, tx: Transaction, owner: Owner) -> Record | None:
    """The attachment's record; rebuilt from the link's alias where the store has none."""
    text = tx.attachment(owner)
    if text is None:
        return _find_marked(nl, owner)
    return read_record(text) or Record(
        bare_plan(Link(host_link_name(owner)), owner.ifname), complete=False
    )


def find_cleanup_record(nl: Netlink, tx: Transaction | None, owner: Owner) -> CleanupRecord | None:
    """What removal needs of the attachment's record; from the link's alias where it has none.

    tx: None where the store cannot be read.
    """
    text = tx.attachment(owner) if tx else None
    if text is None:
        record = _find_marked(nl, owner)
        return cleanup_record_of(record) if record else None
    try:
        return load_cleanup_record(text)
    except DAMAGE:
        return CleanupRecord(host_link_name(owner), complete=False)


def _find_marked(nl: Netlink, owner: Owner) -> Record | None:
    name = host_link_name(owner)
    for link, mark in networks.marked_links(nl):
        if link.name == name:
            from cni_plugin.rebuild import rebuild  # few attachments have lost their record

            return rebuild(link, mark)
    return None


def remove(
    host: Host,
    nl: Netlink,
    store: Store | None,
    owner: Owner,
    record: CleanupRecord | None,
    pod: Namespace | None = None,
    macs: Callable[[], Collection[str]] = tuple,
    release: Callable[[], object] = str,
) -> None:
    """Remove an attachment whole: links, rules, addresses, record; repeatable.

    store: None where it cannot be used; addresses and record stay then. It raises StoreError after
    everything else is removed.
    pod: its namespace; where no node-side link is found, the pod's own link of that name goes if
    it has the attachment's MAC. macs: other MACs that it had besides the one that the record names.
    release: the delegated IPAM's DEL, called when the pod can no longer use its address and
    before the record goes, so that a failure there leaves the record for the next try.
    """
    more = links_besides(nl, owner, record)
    record = record or CleanupRecord(host_link_name(owner))
    elements = record.elements
    if not record.complete:
        elements += _spoof_elements(record.host)
    if not host.delete_links(nl, (record.host, *more)):
        _delete_renamed(host, nl, owner, pod, {record.mac, *macs()})
    if elements:
        _remove_elements(store, owner, elements)
    if record.acceptance:
        _withdraw(store, owner, record.acceptance)
    # While a sender goes on, an entry would lead to the pod that has had the address, or has it
    # next. The rules that translate are gone: none is made anew by us.
    addresses = {*record.addresses, *(a for a in map(pod_of, elements) if a)}
    if addresses:
        host.forget_connections(addresses)
    release()
    if store:
        forget(store, owner, elements, addresses)


def _withdraw(store: Store | None, owner: Owner, accepted: Acceptance) -> None:
    from kernel.acceptance import withdraw  # few networks need it

    if store:
        with store.read() as tx:
            accepted = networks.own_acceptance(tx, owner, accepted)
    withdraw(accepted)


def links_besides(nl: Netlink, owner: Owner, record: CleanupRecord | None) -> tuple[str, ...]:
    """The links of an attachment beside its pair; of one without a record, or with one that is not
    whole, its ifb device if podwire made one.

    The container may have a second attachment to the network, with a device of the same name.
    """
    recorded = record is not None and record.complete
    names = record.links if record and recorded else (ifb_name(owner),)
    found = (read_link(nl, name) for name in names)
    devices = (link for link in found if link and link.kind == "ifb")
    marks = ((k, parse_alias(k.alias)) for k in devices if recorded or is_marked(k.alias))
    return tuple(k.name for k, mark in marks if mark is None or mark.owner == owner)


def _remove_elements(store: Store | None, owner: Owner, elements: Sequence[Element]) -> None:
    """While the address is still ours: the next owner gets the same elements.

    If we were overtaken by a DEL of ours, another attachment may have it already. Those that
    several attachments need go with the last one.
    """
    with open_nft() as nl:
        try:
            with store.transaction() if store else nullcontext() as tx:
                remove_elements(nl, [e for e in elements if not _is_taken(tx, owner, e)])
        except (StoreBusy, StoreDamaged):
            raise
        except StoreError:
            # It cannot be written: so the address stays ours.
            remove_elements(nl, [e for e in elements if not _is_taken(None, owner, e)])


def forget(
    store: Store,
    owner: Owner,
    elements: Collection[Element] = (),
    addresses: Collection[IPAddress] = (),
) -> None:
    """Free an attachment's addresses and drop its record.

    elements, addresses: those that it had.
    """
    with begin_transaction(store, mappings_of(elements)) as tx:
        text = tx.attachment(owner)
        tx.release(owner)
        tx.delete_attachment(owner)
        if text and '"data":' in text:
            from cni_plugin.port_conflicts import pass_on, recorded_mappings

            pass_on(tx, owner, recorded_mappings(text), elements)
        networks.remove_unused(tx, owner.network, elements, addresses)


class NodeLinks:
    """The pairs' ends that are on the node at this moment.

    limited: the attachments that ifb devices are marked with.
    """

    def __init__(self, nl: Netlink) -> None:
        found = read_links(nl)
        # A bridge has the MAC of one of its ports (net/bridge/br_stp_if.c).
        self._links = [link for link in found if link.kind == "veth"]
        marks = (parse_alias(link.alias) for link in found if link.kind == "ifb")
        self.limited = {mark.owner for mark in marks if mark}
        self._names = {link.name for link in self._links}
        self._macs = {link.mac: link.name for link in self._links}
        ends = ((parse_alias(link.alias), link.name) for link in self._links)
        self._marks = {mark.owner: (mark, name) for mark, name in ends if mark}

    def find(self, owner: Owner) -> str:
        """The name of the attachment's link, however it was renamed; empty where there is none."""
        name = host_link_name(owner)
        if name in self._names:
            return name
        if owner in self._marks:
            return self._marks[owner][1]
        return self._macs.get(node_mac(owner), "")

    def pod_macs(self) -> set[str]:
        """The MACs of the pods' ends, as far as the marks say."""
        return {pod_mac(mark) for mark, _name in self._marks.values()}

    def addresses_of_others(self, owner: Owner) -> set[IPAddress]:
        """The addresses of other attachments, as far as the marks say."""
        marks = (mark for other, (mark, _name) in self._marks.items() if other != owner)
        return {address.ip for mark in marks for address in mark.addresses}

    def owners(self, network: str) -> set[Owner]:
        """The network's attachments that links are marked with."""
        return {o for o in (*self._marks, *self.limited) if o.network == network}


def _delete_renamed(
    host: Host, nl: Netlink, owner: Owner, pod: Namespace | None, macs: set[str]
) -> None:
    """Delete the pair by the node's end under another name, or by the pod's end if its MAC fits.

    A namespace's path may lead to another pod by now: of a process, whose number was used again.
    Two attachments that had one address, one after the other, had one MAC.
    """
    links = NodeLinks(nl)
    name = links.find(owner)
    if name:
        host.delete_links(nl, [name])
    elif pod is not None:
        macs = {*macs, pod_mac(Mark(owner))} - links.pod_macs()
        delete_pod_link(pod, owner.ifname, macs)


def _is_taken(tx: Transaction | None, owner: Owner, element: Element) -> bool:
    """Whether another attachment has the element, or its address on this network.

    tx: None where that cannot be read; only what several attachments may need counts then.
    """
    if tx is None:
        return bool(firewall.shared([element]))
    if networks.is_others(tx, owner, element):
        return True
    address = hairpin_address(element)
    holder = tx.owner_of(owner.network, address) if address else None
    return holder not in (None, owner)


def remove_made_bridge(nl: Netlink, store: Store, name: str) -> None:
    """Remove the bridge that a failed ADD made, unless other attachments want it by now.

    An ADD records its bridge before it reads it, and cannot do so while we do.
    """
    with store.transaction() as tx:
        records = (read_record(text) for _owner, text in tx.attachments())
        bridges = (record.plan.bridge for record in records if record)
        if not any(bridge and bridge.name == name for bridge in bridges):
            remove_unused_bridge(nl, name)


def _spoof_elements(port: str) -> tuple[Element, ...]:
    with open_nft() as nl:
        return checks_of(nl, port)
