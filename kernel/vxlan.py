"""The VXLAN device that leads to other nodes: created and repaired (drivers/net/vxlan).

It never learns: every peer has its FDB and neighbour entry, so nothing is flooded and nothing that
another host sends changes where packets go.

Over IPv4 its UDP checksum is zero, as RFC 7348 section 4.1 asks. Left at the kernel's default, it
is computed from an inner checksum that is not filled in yet (local checksum offload), and source
NAT of the encapsulated packet then spoils it: nf_nat takes the partial checksum for the outer one
(net/core/utils.c, inet_proto_csum_replace4; seen with 6.18). It leaves a checksum of zero alone.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address

from kernel.diff import Change, by_key, compare, diff
from kernel.errors import KernelError
from kernel.model import (
    RTPROT_KERNEL,
    RTPROT_PODWIRE_PEERS,
    TABLE_MAIN,
    Address,
    Link,
    Port,
    Route,
    Sysctl,
    Vxlan,
)
from kernel.netlink import links, routes
from kernel.netlink.codec import (
    Message,
    attribute,
    attributes,
    nested,
    number,
    u8,
    u32,
)
from kernel.netlink.socket import Netlink
from kernel.read import read_addresses, read_link
from kernel.sysctl import apply_sysctl

_ID, _LINK, _LOCAL, _LEARNING, _PORT, _LOCAL6, _UDP_CSUM = 1, 3, 4, 7, 15, 17, 18
_IFINFO_BYTES = 16
# What the kernel does not change on a device that is there (vxlan_changelink).
_FIXED = frozenset({"kind", "vxlan", "vni", "port", "local", "uplink", "learning", "udp_checksum"})
_LOST = frozenset({errno.ESRCH})
_PRESENT = frozenset({errno.EEXIST, errno.EADDRNOTAVAIL})


class Rivalry(KernelError):
    """Another device has the tunnel's VNI and port, which cannot be shared."""


@dataclass(frozen=True, slots=True)
class Ensured:
    """A device that is as desired now. changes: what was not; made: created (again).

    failed: of addresses that the kernel refused; the others are there.
    """

    link: Link
    changes: tuple[Change[Link | Address | Route], ...]
    made: bool
    failed: tuple[KernelError, ...] = ()


def create_vxlan(link: Link, vxlan: Vxlan, uplink: int) -> Message:
    """Create the device, down. uplink: the index of vxlan.uplink."""
    local = vxlan.local
    data = nested(
        links.INFO_DATA,
        u32(_ID, vxlan.vni),
        u32(_LINK, uplink),
        attribute(_LOCAL if local.version == 4 else _LOCAL6, local.packed),
        u8(_LEARNING, 0),
        u8(_UDP_CSUM, 0),
        attribute(_PORT, struct.pack("!H", vxlan.port)),
    )
    return links.create_link(link, "vxlan", data)


def read_vxlan(message: Message) -> Vxlan | None:
    """The tunnel of an RTM_NEWLINK; uplink is its index as text.

    None for other kinds of devices, and for one that is bound to no address.
    """
    data = _read_data(message)
    local = data.get(_LOCAL) or data.get(_LOCAL6)
    if local is None or _PORT not in data:
        return None
    return Vxlan(
        vni=number(data[_ID]),
        port=int.from_bytes(data[_PORT]),
        local=ip_address(local),
        uplink=str(number(data[_LINK])) if _LINK in data else "",
        learning=data.get(_LEARNING, b"\0") != b"\0",
        udp_checksum=data.get(_UDP_CSUM, b"\0") != b"\0",
    )


def _read_data(message: Message) -> dict[int, bytes]:
    """The VXLAN attributes of an RTM_NEWLINK; empty for other kinds of links."""
    info = attributes(attributes(message.body, _IFINFO_BYTES).get(links.IFLA_LINKINFO, b""))
    is_vxlan = info.get(links.INFO_KIND) == b"vxlan\0"
    return attributes(info.get(links.INFO_DATA, b"")) if is_vxlan else {}


def find_vxlan(nl: Netlink, name: str) -> Link | None:
    """A link with its tunnel, if it is a VXLAN device; None where no link has the name."""
    answer = nl.run([links.get_link(name)], tolerate=links.GONE)[0]
    if not answer.objects:
        return None
    link, vxlan = links.parse_link(answer.objects[0]), read_vxlan(answer.objects[0])
    port = link.port and replace(link.port, bridge=_name_of(nl, link.port.bridge) or "unknown")
    vxlan = replace(vxlan, uplink=_name_of(nl, vxlan.uplink)) if vxlan else None
    return replace(link, port=port, vxlan=vxlan)


def _name_of(nl: Netlink, index: str) -> str:
    """The name of the link with that index; empty where there is none."""
    link = read_link(nl, index=int(index)) if index else None
    return link.name if link else ""


def ensure_vxlan(
    nl: Netlink, desired: Link, addresses: Sequence[Address], settings: Sequence[Sysctl] = ()
) -> Ensured:
    """The device as desired, with exactly these addresses beside its link-local one.

    settings: of the device, that it needs before it comes up and before it gets addresses; one that
    cannot be set is left to whoever watches them. A device whose tunnel differs is deleted and
    created again, without its entries: the kernel changes none of that. Raises KernelError (ENODEV
    where the uplink is missing), Rivalry.
    """
    # It has no master, and resolves neighbours: the entries of peers count only then.
    desired = replace(desired, port=Port(""), arp=True)
    link = find_vxlan(nl, desired.name)
    found = compare(desired, link)
    made = needs_new_device(found)
    if link is None or made:
        _delete_other(nl, link)
        link = _create(nl, desired)
    _prepare(settings)
    repair = compare(desired, link)
    if repair:
        nl.run(_repair_messages(desired, repair))
        # With an MTU below 1280 its IPv6 and the settings of that are gone, and come back anew with
        # a larger one (net/ipv6/addrconf.c, addrconf_notify).
        _prepare(settings)
    moved, failed = _repair_addresses(nl, link, addresses)
    changes = (found,) if made else (repair, *moved, *_remove_stray_routes(nl, link))
    link = replace(desired, index=link.index)
    return Ensured(link, tuple(filter(None, changes)), made, tuple(failed))


def _prepare(settings: Iterable[Sysctl]) -> None:
    for setting in settings:
        with suppress(KernelError):
            apply_sysctl(setting)


def needs_new_device(change: Change[Link] | None) -> bool:
    """Whether the kernel can make the device as desired only by creating it."""
    return change is not None and (change.observed is None or change.concerns(_FIXED))


def _delete_other(nl: Netlink, link: Link | None) -> None:
    if link is None:
        return
    if link.kind != "vxlan":
        hint = f"a {link.kind or 'device'} has that name"
        raise KernelError("make VXLAN device", link.name, 0, hint)
    nl.run([links.delete_link(link.name)], tolerate=links.GONE)


def _create(nl: Netlink, desired: Link) -> Link:
    assert desired.vxlan is not None  # noqa: S101 - a desired device has a tunnel
    uplink = nl.run([links.get_link(desired.vxlan.uplink)])[0]
    index = links.parse_link(uplink.objects[0]).index
    try:
        nl.run([create_vxlan(desired, desired.vxlan, index)])
    except KernelError as error:
        if error.errno != errno.EEXIST or not (rival := _find_rival(nl, desired.vxlan)):
            raise
        hint = f"{rival} has VNI {desired.vxlan.vni} and port {desired.vxlan.port} already"
        raise Rivalry(error.operation, error.target, error.errno, hint) from error
    found = find_vxlan(nl, desired.name)
    if found is None:
        raise KernelError("find VXLAN device", desired.name, errno.ENODEV, "removed just now")
    return found


def _find_rival(nl: Netlink, vxlan: Vxlan) -> str:
    """The name of another device that receives the same packets; empty where there is none."""
    for message in nl.dump(links.list_links()):
        data = _read_data(message)
        port = data.get(_PORT, b"")
        if _ID in data and (number(data[_ID]), int.from_bytes(port)) == (vxlan.vni, vxlan.port):
            return links.parse_link(message).name
    return ""


def _repair_messages(desired: Link, change: Change[Link]) -> list[Message]:
    """What brings a device to its traits, and up."""
    messages = [links.set_traits(replace(desired, port=None))]
    if change.concerns(("master",)):
        messages.append(links.set_master(desired.name, 0))
    if change.concerns(("arp",)):
        messages.append(links.clear_flags(desired.name, links.IFF_NOARP))
    if desired.mtu and change.concerns(("mtu",)):
        messages.append(links.set_mtu(desired.name, desired.mtu))
    if desired.mac and change.concerns(("mac",)):
        messages.append(links.set_mac(desired.name, desired.mac))
    return [*messages, links.set_up(desired.name)]


def _repair_addresses(
    nl: Netlink, link: Link, desired: Sequence[Address]
) -> tuple[list[Change[Address]], list[KernelError]]:
    """The changes that were made, and why others could not be: one family may be refused alone."""
    wanted = by_key(desired)
    present = by_key(read_addresses(nl, [link]))
    ours = {k: a for k, a in present.items() if k in wanted or not is_automatic(a)}
    # An address has no traits: what differs is missing, or a stray, which goes first.
    changes = sorted(diff(wanted, ours), key=lambda change: change.observed is None)
    done, failed = list[Change[Address]](), list[KernelError]()
    for change in changes:
        act = links.add_address if change.desired else links.delete_address
        try:
            nl.run([act(change.noun, link.index)], tolerate=_PRESENT)
            done.append(change)
        except KernelError as error:
            failed.append(error)
    return done, failed


def is_automatic(address: Address) -> bool:
    """Whether the kernel itself gives a link such an address: the link-local one of IPv6.

    Of IPv4 a DHCP client does, on whatever link it finds (RFC 3927).
    """
    return address.address.version == 6 and address.address.is_link_local


def is_stray_route(route: Route) -> bool:
    """Whether a route through the device cannot be meant: without a next hop, or a default route.

    Behind the device are peers alone, each a next hop; others may route by one of these.
    """
    foreign = route.protocol not in (RTPROT_KERNEL, RTPROT_PODWIRE_PEERS)
    return foreign and route.table == TABLE_MAIN and (route.via is None or not route.dst.prefixlen)


def _remove_stray_routes(nl: Netlink, link: Link) -> tuple[Change[Route], ...]:
    strays = []
    for version in (4, 6):
        for message in nl.dump(routes.list_routes(version, link=link.index)):
            if routes.mark_of(message) != RTPROT_PODWIRE_PEERS:  # not decoded: there are thousands
                found = routes.parse_named_route(message, {link.index: link.name})
                strays += [found] if found and is_stray_route(found) else []
    nl.run([routes.delete_route(route, link.index) for route in strays], tolerate=_LOST)
    return tuple(Change(None, route) for route in strays)


def remove_vxlan(nl: Netlink, name: str) -> bool:
    """Remove the device with all its entries; whether a VXLAN device of that name was there."""
    have = find_vxlan(nl, name)
    if have is None or have.kind != "vxlan":
        return False
    return nl.run([links.delete_link(name)], tolerate=links.GONE)[0].errno == 0
