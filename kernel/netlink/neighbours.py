"""Neighbour and FDB messages: nouns to messages and back (linux/neighbour.h).

They are made by thousands, and so carry no text for errors: the sender names the noun.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from ipaddress import ip_address

from kernel.model import FdbEntry, Neighbour
from kernel.netlink.codec import (
    FAMILY,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Message,
    attribute,
    attributes,
    mac_bytes,
    u32,
)

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

_NDA_DST, _NDA_LLADDR, _NDA_PORT, _NDA_VNI, _NDA_IFINDEX, _NDA_NH_ID = 1, 2, 6, 7, 8, 13
# What the kernel reports of an FDB entry only where it departs from the device
# (drivers/net/vxlan/vxlan_core.c, vxlan_fdb_info).
_DEPARTURES = {_NDA_PORT: "port", _NDA_VNI: "vni", _NDA_IFINDEX: "via", _NDA_NH_ID: "nhid"}
_NUD_PERMANENT, _NTF_SELF = 0x80, 0x02
_NDMSG = struct.Struct("=BxxxiHBB")
_AF_BRIDGE = 7
_NO_MAC, _NO_ADDRESS = bytes(6), bytes(4)


def add_neighbour(entry: Neighbour, index: int) -> Message:
    """Add or replace a permanent neighbour."""
    ip = entry.address
    head = _NDMSG.pack(FAMILY[ip.version], index, _NUD_PERMANENT, 0, 0)
    body = head + attribute(_NDA_DST, ip.packed) + attribute(_NDA_LLADDR, mac_bytes(entry.mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_neighbour(entry: Neighbour, index: int) -> Message:
    """Delete a neighbour, whatever its MAC is."""
    head = _NDMSG.pack(FAMILY[entry.address.version], index, 0, 0, 0)
    body = head + attribute(_NDA_DST, entry.address.packed)
    return Message(RTM_DELNEIGH, 0, body)


def add_fdb(entry: FdbEntry, index: int) -> Message:
    """Add or replace a permanent FDB entry; a unicast MAC has one VTEP alone."""
    head = _NDMSG.pack(_AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
    lladdr = attribute(_NDA_LLADDR, mac_bytes(entry.mac))
    body = head + lladdr + attribute(_NDA_DST, entry.dst.packed)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_fdb(entry: FdbEntry, index: int) -> Message:
    """Delete a MAC's FDB entry, wherever it leads."""
    head = _NDMSG.pack(_AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
    body = head + attribute(_NDA_LLADDR, mac_bytes(entry.mac))
    return Message(RTM_DELNEIGH, 0, body)


def list_neighbours(version: int, index: int) -> Message:
    """Ask for a link's neighbours of one address family, 4 or 6 (a dump)."""
    body = _NDMSG.pack(FAMILY[version], 0, 0, 0, 0) + u32(_NDA_IFINDEX, index)
    return Message(RTM_GETNEIGH, 0, body, f"list IPv{version} neighbours")


def list_fdb(index: int) -> Message:
    """Ask for a link's FDB entries (a dump)."""
    body = _NDMSG.pack(_AF_BRIDGE, 0, 0, 0, 0) + u32(_NDA_IFINDEX, index)
    return Message(RTM_GETNEIGH, 0, body, "list FDB entries")


def parse_entry(message: Message, link: str = "") -> tuple[int, Neighbour | FdbEntry | None, bool]:
    """(link index, entry, whether it is permanent) of an RTM_NEWNEIGH or RTM_DELNEIGH.

    The entry is None for what is neither: entries of bridges. One that leads to a group of next
    hops has the unspecified address.
    """
    family, index, state, _flags, _kind = _NDMSG.unpack_from(message.body)
    permanent = bool(state & _NUD_PERMANENT)
    found = attributes(message.body, _NDMSG.size)
    lladdr, dst = found.get(_NDA_LLADDR, _NO_MAC), found.get(_NDA_DST)
    if family == _AF_BRIDGE and (dst or _NDA_NH_ID in found):
        to = ip_address(dst or _NO_ADDRESS)
        return index, FdbEntry(link, lladdr.hex(":"), to, _departures(found)), permanent
    if dst is None or family == _AF_BRIDGE:
        return index, None, permanent
    return index, Neighbour(link, ip_address(dst), lladdr.hex(":")), permanent


def _departures(found: Mapping[int, bytes]) -> str:
    numbers = (
        (name, found[key], "big" if key == _NDA_PORT else sys.byteorder)
        for key, name in _DEPARTURES.items()
        if key in found
    )
    return " ".join(f"{name} {int.from_bytes(raw, order)}" for name, raw, order in numbers)
