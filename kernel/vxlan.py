"""The VXLAN device that leads to other nodes: made, compared, repaired (drivers/net/vxlan).

It never learns: every peer has its FDB and neighbour entry, so nothing is flooded and nothing that
a stranger sends changes where packets go.

Over IPv4 its UDP checksum is zero, as RFC 7348 section 4.1 wants. Left at the kernel's default, it
is computed from an inner checksum that is not filled in yet (local checksum offload), and source
NAT of the encapsulated packet then spoils it: nf_nat takes the partial checksum for the outer one
(net/core/utils.c, inet_proto_csum_replace4; seen with 6.18). It leaves a checksum of zero alone.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from kernel.errors import KernelError
from kernel.model import Address, Link, Sysctl, Vxlan
from kernel.netlink import links as rtnl
from kernel.netlink.codec import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    attributes,
    nested,
    number,
    text,
    u8,
    u32,
)
from kernel.netlink.socket import Netlink
from kernel.read import read_addresses
from kernel.sysctl import apply_sysctl

_LINKINFO, _KIND, _DATA = 18, 1, 2
_ID, _LINK, _LOCAL, _LEARNING, _PORT, _LOCAL6, _UDP_CSUM = 1, 3, 4, 7, 15, 17, 18
_IFINFO_BYTES = 16
_GONE = frozenset({errno.ENODEV})
_PRESENT = frozenset({errno.EEXIST, errno.EADDRNOTAVAIL})
# We own the routes of this link; and its link-local address must serve at once.
_SETTINGS = ("accept_ra", "accept_dad")


class Rivalry(KernelError):
    """Another device has the tunnel's VNI and port, which cannot be shared."""


@dataclass(frozen=True, slots=True)
class Ensured:
    """A device that is as wanted now. faults: what was wrong, in words; made: made (anew)."""

    link: Link
    faults: tuple[str, ...]
    made: bool


def create_vxlan(link: Link, vxlan: Vxlan, uplink: int) -> Message:
    """Create the device, down. uplink: the index of vxlan.uplink."""
    local = vxlan.local
    data = nested(
        _DATA,
        u32(_ID, vxlan.vni),
        u32(_LINK, uplink),
        attribute(_LOCAL if local.version == 4 else _LOCAL6, local.packed),
        u8(_LEARNING, 0),
        u8(_UDP_CSUM, 0),
        attribute(_PORT, struct.pack("!H", vxlan.port)),
    )
    body = rtnl.link_body(link) + nested(_LINKINFO, text(_KIND, "vxlan"), data)
    what = f"create VXLAN device {link.name}"
    return Message(rtnl.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)


def read_vxlan(message: Message) -> tuple[Vxlan | None, tuple[str, ...]]:
    """(tunnel, what podwire's never does) of an RTM_NEWLINK; uplink is its index as text.

    The tunnel is None for other kinds of devices, and for one that is bound to no address.
    """
    info = attributes(attributes(message.body, _IFINFO_BYTES).get(_LINKINFO, b""))
    if info.get(_KIND, b"").rstrip(b"\0") != b"vxlan":
        return None, ()
    data = attributes(info.get(_DATA, b""))
    habits = tuple(text for key, text in _HABITS.items() if data.get(key, b"\0") != b"\0")
    local = data.get(_LOCAL) or data.get(_LOCAL6)
    if local is None or _PORT not in data:
        return None, habits
    port = int(struct.unpack("!H", data[_PORT])[0])
    uplink = str(number(data[_LINK])) if _LINK in data else ""
    return Vxlan(number(data[_ID]), port, ip_address(local), uplink), habits


_HABITS = {_LEARNING: "learns addresses by itself", _UDP_CSUM: "computes UDP checksums"}


def find_vxlan(nl: Netlink, name: str) -> tuple[Link | None, tuple[str, ...]]:
    """(device with its tunnel, what podwire's never does); None where no link has the name."""
    answer = nl.run([rtnl.get_link(name)], tolerate=_GONE)[0]
    if not answer.objects:
        return None, ()
    link = rtnl.read_link(answer.objects[0])
    vxlan, habits = read_vxlan(answer.objects[0])
    if vxlan is not None and vxlan.uplink:
        found = nl.exchange([rtnl.get_link(index=int(vxlan.uplink))])[0].objects
        vxlan = replace(vxlan, uplink=rtnl.read_link(found[0]).name if found else "")
    return replace(link, vxlan=vxlan), habits


def ensure_vxlan(nl: Netlink, want: Link, addresses: Sequence[Address]) -> Ensured:
    """The device as wanted, with exactly these addresses beside its link-local one.

    What cannot be changed on a device (its tunnel and habits) makes it be made anew, without its
    entries. Raises KernelError (ENODEV where the uplink is missing), Rivalry.
    """
    have, habits = find_vxlan(nl, want.name)
    faults = _tunnel_faults(want, have, habits)
    if faults and have is not None:
        if have.kind != "vxlan":
            hint = f"a {have.kind or 'device'} has that name"
            raise KernelError("make VXLAN device", want.name, 0, hint)
        nl.run([rtnl.delete_link(want.name)], tolerate=_GONE)
    link = _create(nl, want) if faults or have is None else have
    quiet = _is_quiet(nl, link)
    traits = _trait_faults(want, link, quiet)
    if traits:
        nl.run(_trait_changes(want, link, quiet))
    moved = _fix_addresses(nl, link, addresses)
    made = link is not have
    return Ensured(replace(want, index=link.index), tuple(faults if made else traits + moved), made)


def _tunnel_faults(want: Link, have: Link | None, habits: Sequence[str]) -> list[str]:
    if have is None:
        return [f"link {want.name} is missing"]
    if have.kind != "vxlan":
        return [f"{want.name} is a {have.kind or 'device'}"]
    faults = [f"{want.name} {habit}" for habit in habits]
    if have.vxlan is None or want.vxlan is None:
        return [*faults, f"{want.name} is bound to no address"]
    return faults + [
        f"{want.name} has {field} {getattr(have.vxlan, field)}, not {getattr(want.vxlan, field)}"
        for field in ("vni", "port", "local", "uplink")
        if getattr(have.vxlan, field) != getattr(want.vxlan, field)
    ]


def _create(nl: Netlink, want: Link) -> Link:
    assert want.vxlan is not None  # noqa: S101 - a device that is wanted has a tunnel
    uplink = nl.run([rtnl.get_link(want.vxlan.uplink)])[0]
    index = rtnl.read_link(uplink.objects[0]).index
    try:
        nl.run([create_vxlan(want, want.vxlan, index)])
    except KernelError as error:
        if error.errno != errno.EEXIST or not (rival := _find_rival(nl, want.vxlan)):
            raise
        hint = f"{rival} has VNI {want.vxlan.vni} and port {want.vxlan.port} already"
        raise Rivalry(error.operation, error.target, error.errno, hint) from error
    for setting in _SETTINGS:
        apply_sysctl(Sysctl(f"net/ipv6/conf/{want.name}/{setting}", "0", required=False))
    found, _habits = find_vxlan(nl, want.name)
    if found is None:
        raise KernelError("find VXLAN device", want.name, errno.ENODEV, "removed just now")
    return found


def _find_rival(nl: Netlink, vxlan: Vxlan) -> str:
    """The name of another device that receives the same packets; empty where there is none."""
    for message in nl.dump(rtnl.list_links()):
        info = attributes(attributes(message.body, _IFINFO_BYTES).get(_LINKINFO, b""))
        data = attributes(info.get(_DATA, b"")) if info.get(_KIND) == b"vxlan\0" else {}
        port = data.get(_PORT, b"")
        if _ID in data and (number(data[_ID]), int.from_bytes(port)) == (vxlan.vni, vxlan.port):
            return rtnl.read_link(message).name
    return ""


def _is_quiet(nl: Netlink, link: Link) -> bool:
    """Whether neighbours' MACs count for nothing on the link."""
    found = nl.run([rtnl.get_link(link.name)])[0].objects
    return any(rtnl.read_flags(message) & rtnl.IFF_NOARP for message in found)


def _trait_faults(want: Link, have: Link, quiet: bool) -> list[str]:
    faults = [] if have.up else [f"{want.name} is down"]
    faults += [f"{want.name} has a master"] if have.port else []
    faults += [f"{want.name} uses no neighbours (NOARP)"] if quiet else []
    for field in ("mac", "mtu", "alias"):
        wanted, is_ = getattr(want, field), getattr(have, field)
        if wanted and wanted != is_:
            faults.append(f"{want.name} has {field} {is_}, not {wanted}")
    return faults


def _trait_changes(want: Link, have: Link, quiet: bool) -> list[Message]:
    changes = [rtnl.describe_link(replace(want, port=None))]
    changes += [rtnl.release(want.name)] if have.port else []
    changes += [rtnl.clear_flags(want.name, rtnl.IFF_NOARP)] if quiet else []
    if want.mtu and want.mtu != have.mtu:
        changes.append(rtnl.set_mtu(want.name, want.mtu))
    if want.mac and want.mac != have.mac:
        changes.append(rtnl.set_mac(want.name, want.mac))
    return [*changes, rtnl.set_up(want.name)]


def _fix_addresses(nl: Netlink, link: Link, wanted: Sequence[Address]) -> list[str]:
    want = {a.address: a for a in wanted}
    have = {a.address: a for a in read_addresses(nl, [link])}
    strange = [have[ip] for ip in have if ip not in want and not ip.is_link_local]
    missing = [want[ip] for ip in want if ip not in have]
    messages = [rtnl.delete_address(a, link.index) for a in strange]
    messages += [rtnl.add_address(a, link.index) for a in missing]
    nl.run(messages, tolerate=_PRESENT)
    return [
        *(f"{link.name} has the address {a.address}" for a in strange),
        *(f"{link.name} lacks its address {a.address}" for a in missing),
    ]


def remove_vxlan(nl: Netlink, name: str) -> bool:
    """Remove the device with all its entries; whether a VXLAN device of that name was there."""
    have, _habits = find_vxlan(nl, name)
    if have is None or have.kind != "vxlan":
        return False
    return nl.run([rtnl.delete_link(name)], tolerate=_GONE)[0].errno == 0
