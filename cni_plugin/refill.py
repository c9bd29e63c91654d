"""The content of a new database on a node that has pods: what the marks on their links say."""

from __future__ import annotations

import sys

from cni_plugin import network_rules as networks
from cni_plugin.attachment import dump_record
from cni_plugin.removal import rebuild
from ipam.errors import AddressTaken
from ipam.store import Owner, Transaction
from kernel.model import IPAddress
from kernel.netlink.socket import open_netlink


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
                networks.add_prefixes(tx, owner.network, record.plan.masquerade)


def _reserve(tx: Transaction, owner: Owner, address: IPAddress) -> None:
    try:
        tx.reserve(owner, address)
    except AddressTaken as error:
        # Two pods with one address: neither may lose it, and an operator must decide.
        print(f"podwire: {owner} has the same address as another pod: {error}", file=sys.stderr)
