"""Records made again of what the marks on links say: where one is lost, and in a new database."""

from __future__ import annotations

import sys
from dataclasses import replace

from cni_plugin import network_rules as networks
from cni_plugin.attachment import Record, bare_plan, dump_record
from cni_plugin.names import Mark
from ipam.errors import AddressTaken
from ipam.store import Owner, Transaction
from kernel.model import Address, IPAddress, Link
from kernel.netlink.socket import open_netlink
from kernel.nftables.masquerade import read_sources


def rebuild(link: Link, mark: Mark) -> Record:
    """A record from the alias of a node-side link, enough for CHECK's first half and for DEL."""
    host = replace(link, index=0, port=None, promisc=False, allmulti=None, queue_length=None)
    ifname = mark.owner.ifname
    plan = bare_plan(host, ifname)
    addresses = tuple(Address(ifname, a) for a in mark.addresses)
    masquerade = tuple(dict.fromkeys(a.network for a in mark.addresses)) if mark.masquerade else ()
    plan = replace(
        plan,
        pod=replace(plan.pod, addresses=addresses),
        elements=networks.hairpin_elements(link, mark),
        masquerade=masquerade,
    )
    return Record(plan, pod=mark.pod, ipam=mark.ipam, complete=False)


def fill_from_marks(tx: Transaction) -> None:
    """Record each attachment whose link is there.

    Those that another store records, too: the network's addresses are no others for it.
    """
    with open_netlink() as nl:
        for link, mark in networks.marked_links(nl):
            owner, record = mark.owner, rebuild(link, mark)
            tx.put_attachment(owner, dump_record(record))
            for address in () if mark.ipam else mark.addresses:
                _reserve(tx, owner, address.ip)
            if record.plan.masquerade:
                # By the kernel: the ranges are known to no mark.
                sources = read_sources(a.ip for a in mark.addresses)
                networks.add_prefixes(tx, owner.network, record.plan.masquerade, sources)


def _reserve(tx: Transaction, owner: Owner, address: IPAddress) -> None:
    try:
        tx.reserve(owner, address)
    except AddressTaken as error:
        # Two pods with one address: neither may lose it, and an operator must decide.
        print(f"podwire: {owner} has the same address as another pod: {error}", file=sys.stderr)
