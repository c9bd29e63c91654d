"""Neighbour entries on a packet's way, and whether they lead elsewhere."""

from __future__ import annotations

import os
from typing import NamedTuple

from kernel.link_hooks import describe_hooks
from kernel.model import IPAddress, Link, Neighbour
from kernel.netlink.neighbours import list_neighbours, parse_entry
from kernel.netlink.socket import Netlink
from kernel.paths import Packet, PacketPath, find_paths
from kernel.read import read_link

_UNRESOLVED = "00:00:00:00:00:00"


class Entry(NamedTuple):
    """A neighbour entry. is_permanent: made by hand or by a program, never resolved."""

    mac: str
    is_permanent: bool


def find_neighbour(nl: Netlink, link: Link, address: IPAddress) -> Entry | None:
    """The entry of an address on a link that has a MAC. Raises KernelError."""
    for message in nl.dump(list_neighbours(address.version, link.index)):
        at, entry, permanent = parse_entry(message)
        if at != link.index or not isinstance(entry, Neighbour):
            continue
        if entry.address == address and entry.mac != _UNRESOLVED:
            return Entry(entry.mac, permanent)
    return None


def wrong_neighbour(nl: Netlink, link: Link | None, address: IPAddress, mac: str | None) -> str:
    """How the entry of an address leads elsewhere than to its MAC; empty where it does not."""
    entry = find_neighbour(nl, link, address) if link else None
    if link is None or entry is None or mac is None or entry.mac == mac:
        return ""
    how = " (permanent, so another program's)" if entry.is_permanent else ""
    return f"neighbour {address} on {link.name} is {entry.mac}{how}, not {mac}"


class UnderlayPath(NamedTuple):
    """The path to another node. fault: what is wrong with it here, empty where nothing is.

    hint: what may be, where no answer comes.
    """

    path: PacketPath
    fault: str = ""
    hint: str = ""


def find_underlay_path(
    nl: Netlink, to: IPAddress, source: IPAddress | None, own: str
) -> UnderlayPath:
    """The path to another node, and what is wrong with it.

    own: the overlay device, by which no node is reached. A neighbour that another program has made
    is named: whose MAC it should be is known to the other node alone.
    """
    (path,) = find_paths(nl, [Packet(to, source)])
    by = f" by rule {path.rule}" if path.rule else ""
    if not path.link:
        return UnderlayPath(path, f"no way to {to}: {os.strerror(path.errno)}{by}")
    if path.link in (own, "lo"):
        fault = f"packets to {to} go dev {path.link}{by}, which leads to no node"
        return UnderlayPath(path, fault)
    link = read_link(nl, path.link)
    if link is None:
        return UnderlayPath(path)
    next_hop = path.via or to
    entry = find_neighbour(nl, link, next_hop)
    if entry and entry.is_permanent:
        why = "permanent, so another program's"
        return UnderlayPath(path, f"neighbour {next_hop} on {path.link} is {entry.mac} ({why})")
    return UnderlayPath(path, hint=find_hint(nl, link, next_hop))


def find_hint(nl: Netlink, link: Link, next_hop: IPAddress) -> str:
    """What may keep packets from leaving by a link; empty for nothing. Raises KernelError."""
    if link.arp is not False and not find_neighbour(nl, link, next_hop):
        return f"neighbour {next_hop} does not resolve on {link.name}"
    return describe_hooks(nl, link)
