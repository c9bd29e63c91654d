"""Neighbour and FDB messages: nouns to messages and back (linux/neighbour.h).

They are made by thousands, and so carry no words for errors: whoever sends them names the noun.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from kernel.model import FdbEntry, Neighbour
from kernel.wire import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Message,
    attribute,
    attributes,
    u32,
)

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

_NDA_DST, _NDA_LLADDR, _NDA_IFINDEX = 1, 2, 8
_NUD_PERMANENT, _NTF_SELF = 0x80, 0x02
_NDMSG = struct.Struct("=BxxxiHBB")
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_AF_BRIDGE = 7
_NOBODY = b"\0" * 6


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def add_neighbour(entry: Neighbour, index: int) -> Message:
    """Add or replace a permanent neighbour."""
    ip = entry.address
    head = _NDMSG.pack(_FAMILY[ip.version], index, _NUD_PERMANENT, 0, 0)
    body = head + attribute(_NDA_DST, ip.packed) + attribute(_NDA_LLADDR, _mac_bytes(entry.mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_neighbour(entry: Neighbour, index: int) -> Message:
    """Delete a neighbour, whatever its MAC is."""
    head = _NDMSG.pack(_FAMILY[entry.address.version], index, 0, 0, 0)
    body = head + attribute(_NDA_DST, entry.address.packed)
    return Message(RTM_DELNEIGH, 0, body)


def add_fdb(entry: FdbEntry, index: int) -> Message:
    """Add or replace a permanent FDB entry; a unicast MAC has one VTEP alone."""
    head = _NDMSG.pack(_AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
    lladdr = attribute(_NDA_LLADDR, _mac_bytes(entry.mac))
    body = head + lladdr + attribute(_NDA_DST, entry.dst.packed)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def delete_fdb(entry: FdbEntry, index: int) -> Message:
    """Delete a MAC's FDB entry, wherever it leads."""
    head = _NDMSG.pack(_AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
    body = head + attribute(_NDA_LLADDR, _mac_bytes(entry.mac))
    return Message(RTM_DELNEIGH, 0, body)


def list_neighbours(version: int, index: int) -> Message:
    """Ask for a link's neighbours of one address family, 4 or 6 (a dump)."""
    body = _NDMSG.pack(_FAMILY[version], 0, 0, 0, 0) + u32(_NDA_IFINDEX, index)
    return Message(RTM_GETNEIGH, 0, body, f"list IPv{version} neighbours")


def list_fdb(index: int) -> Message:
    """Ask for a link's FDB entries (a dump)."""
    body = _NDMSG.pack(_AF_BRIDGE, 0, 0, 0, 0) + u32(_NDA_IFINDEX, index)
    return Message(RTM_GETNEIGH, 0, body, "list FDB entries")


def read_entry(message: Message, link: str = "") -> tuple[int, Neighbour | FdbEntry | None, bool]:
    """(link index, entry, whether it is permanent) of an RTM_NEWNEIGH or RTM_DELNEIGH.

    The entry is None for what is neither: a VXLAN device's default destination (MAC 0), entries
    of bridges.
    """
    family, index, state, _flags, _kind = _NDMSG.unpack_from(message.body)
    permanent = bool(state & _NUD_PERMANENT)
    found = attributes(message.body, _NDMSG.size)
    lladdr, dst = found.get(_NDA_LLADDR, _NOBODY), found.get(_NDA_DST)
    if dst is None or (family == _AF_BRIDGE and lladdr == _NOBODY):
        return index, None, permanent
    if family == _AF_BRIDGE:
        return index, FdbEntry(link, lladdr.hex(":"), ip_address(dst)), permanent
    return index, Neighbour(link, ip_address(dst), lladdr.hex(":")), permanent
