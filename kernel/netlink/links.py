"""Link and address messages: nouns to messages and back (linux/if_link.h, if_addr.h)."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_interface

from kernel.model import Address, Counters, Link, Port, Sysctl
from kernel.netlink.codec import (
    FAMILY,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    attribute,
    attributes,
    first_attribute,
    mac_bytes,
    nested,
    number,
    string,
    text,
    u8,
    u32,
)

GONE = frozenset({errno.ENODEV})
"""The answer where there is no such link."""
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22

# The group of links that are about to be deleted together. Group 0 is the default of every link; no
# other program uses this one (linux/netdevice.h). Processes share it: what one has marked another's
# message may take along, and finding nothing left is as good.
GROUP = 0x70776972

IFF_UP, IFF_NOARP, IFF_PROMISC, IFF_ALLMULTI = 0x1, 0x80, 0x100, 0x200
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_TXQLEN, _IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 13, 16, 18, 20, 28
_OPERATIONAL = (0, 6)  # IF_OPER_UNKNOWN, IF_OPER_UP (RFC 2863)
IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS = 29, 8
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_LINK_NETNSID = 26, 27, 37
_IFLA_INET_CONF, _IPV4_DEVCONF_ARP_NOTIFY = 1, 22  # linux/if_link.h, linux/ip.h
# Settings of a link that its messages carry: of IPv4 an index of linux/ip.h (IPV4_DEVCONF_*), of
# IPv6 an attribute (IFLA_INET6_ADDR_GEN_MODE).
_CARRIED = {("ipv4", "forwarding"): 1, ("ipv4", "arp_ignore"): 19, ("ipv6", "addr_gen_mode"): 8}
INFO_KIND, INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_INFO_PEER = 1
_IFLA_STATS64 = 23
_COUNTERS = struct.Struct("=8Q")  # the first members of struct rtnl_link_stats64
_IFLA_XDP, _XDP_ATTACHED, _XDP_PROGRAM_ID = 43, 2, 4
_BRPORT_STATE, _BRPORT_MODE, _BRPORT_ISOLATED = 1, 4, 33
_FORWARDING = b"\3"  # BR_STATE_FORWARDING (linux/if_bridge.h)

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS, _IFA_PROTO = 1, 2, 4, 8, 11
IFA_F_NODAD, IFA_F_PERMANENT, _IFA_F_NOPREFIXROUTE = 0x02, 0x80, 0x200
_IFA_F_DADFAILED, _IFA_F_TENTATIVE = 0x08, 0x40

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")


def _link_body(name: str, flags: int = 0, change: int = 0, index: int = 0) -> bytes:
    head = _IFINFO.pack(socket.AF_UNSPEC, 0, index, flags, change)
    return head + (text(IFLA_IFNAME, name) if name else b"")


def _traits(link: Link) -> bytes:
    mac = attribute(IFLA_ADDRESS, mac_bytes(link.mac)) if link.mac else b""
    return mac + (u32(IFLA_MTU, link.mtu) if link.mtu else b"")


def create_veth(host: Link, peer: Link, peer_netns_fd: int, master_index: int = 0) -> Message:
    """Create the pair in one message: peer already in its namespace, host side on its bridge.

    Both are down: the peer because it is registered before it has a partner, and veth_open
    answers ENOTCONN (drivers/net/veth.c); the host side because a link that comes up before its
    accept_dad is set tests its link-local address for seconds, and forwards no IPv6 meanwhile.
    """
    peer_body = (
        _link_body("") + text(IFLA_IFNAME, peer.name) + _traits(peer)
        + u32(IFLA_NET_NS_FD, peer_netns_fd)
    )  # fmt: skip
    made = create_link(host, "veth", nested(INFO_DATA, attribute(_VETH_INFO_PEER, peer_body)))
    body = made.body + (u32(IFLA_MASTER, master_index) if master_index else b"")
    return made._replace(body=body, what=f"create veth pair {host.name} - {peer.name}")


def set_traits(link: Link, *, up: bool = False, settings: Iterable[Sysctl] = ()) -> Message:
    """Set alias and bridge port flags; the kernel takes neither at creation. up: set it up too.

    settings: of the link; those that no message carries are left out (see `carries`).
    """
    body = _link_body(link.name, IFF_UP * up, IFF_UP * up) + _encode_settings(settings)
    if link.alias is not None:
        body += text(IFLA_IFALIAS, link.alias)
    if link.port:
        data = nested(
            _INFO_SLAVE_DATA,
            u8(_BRPORT_MODE, link.port.hairpin),
            u8(_BRPORT_ISOLATED, link.port.isolated),
        )
        body += nested(IFLA_LINKINFO, text(_INFO_SLAVE_KIND, "bridge"), data)
    return Message(RTM_NEWLINK, 0, body, f"set alias and port flags of {link.name}")


def set_up(name: str) -> Message:
    """Set a link up."""
    return set_flags(name, IFF_UP)


def carries(setting: Sysctl) -> bool:
    """Whether `set_traits` can set it."""
    return _field_of(setting) in _CARRIED


def _field_of(setting: Sysctl) -> tuple[str, str]:
    """("ipv4", "forwarding") of net/ipv4/conf/LINK/forwarding."""
    return setting.path[4:8], setting.path.rpartition("/")[2]


def _encode_settings(settings: Iterable[Sysctl]) -> bytes:
    inet, inet6 = b"", b""
    for setting in filter(carries, settings):
        field = _field_of(setting)
        if field[0] == "ipv4":
            inet += u32(_CARRIED[field], int(setting.value))
        else:
            inet6 += u8(_CARRIED[field], int(setting.value))
    families = nested(socket.AF_INET, nested(_IFLA_INET_CONF, inet)) if inet else b""
    families += nested(socket.AF_INET6, inet6) if inet6 else b""
    return nested(_IFLA_AF_SPEC, families) if families else b""


def set_arp_notify(name: str) -> Message:
    """Let a link announce its IPv4 addresses to its neighbours when it comes up (arp_notify)."""
    return Message(RTM_NEWLINK, 0, _link_body(name) + _ARP_NOTIFY, f"set arp_notify of {name}")


# Settings go with a message where they can: a path below /proc/sys is looked up among those of all
# namespaces (fs/proc/proc_sysctl.c, proc_sys_compare), and costs more with every pod.
_ARP_NOTIFY = nested(
    _IFLA_AF_SPEC,
    nested(socket.AF_INET, nested(_IFLA_INET_CONF, u32(_IPV4_DEVCONF_ARP_NOTIFY, 1))),
)


def set_flags(name: str, flags: int) -> Message:
    """Set interface flags (IFF_*); the others stay."""
    return Message(RTM_NEWLINK, 0, _link_body(name, flags, flags), f"set flags of {name}")


def clear_flags(name: str, flags: int) -> Message:
    """Clear interface flags (IFF_*); the others stay."""
    return Message(RTM_NEWLINK, 0, _link_body(name, 0, flags), f"clear flags of {name}")


def set_master(name: str, master: int) -> Message:
    """Make a link the port of a bridge, by its index; 0 takes it from its master."""
    body = _link_body(name) + u32(IFLA_MASTER, master)
    what = f"set master {master} of" if master else "release from its master"
    return Message(RTM_NEWLINK, 0, body, f"{what} {name}")


def set_mac(name: str, mac: str) -> Message:
    """Set a link's hardware address; an address that was set so is no longer derived from ports."""
    body = _link_body(name) + attribute(IFLA_ADDRESS, mac_bytes(mac))
    return Message(RTM_NEWLINK, 0, body, f"set MAC of {name}")


def set_mtu(name: str, mtu: int) -> Message:
    """Set a link's MTU in bytes."""
    return Message(RTM_NEWLINK, 0, _link_body(name) + u32(IFLA_MTU, mtu), f"set MTU of {name}")


def set_queue_length(name: str, packets: int) -> Message:
    """Set the length of a link's transmit queue."""
    body = _link_body(name) + u32(_IFLA_TXQLEN, packets)
    return Message(RTM_NEWLINK, 0, body, f"set queue length of {name}")


def create_link(link: Link, kind: str, *data: bytes) -> Message:
    """Create a link, down. data: what its kind needs, nested in `INFO_DATA`."""
    info = nested(IFLA_LINKINFO, text(INFO_KIND, kind), *data)
    body, what = _link_body(link.name) + _traits(link) + info, f"create {kind} device {link.name}"
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)


def delete_link(name: str) -> Message:
    """Delete a link by name; a veth takes its peer, addresses and routes with it."""
    return Message(RTM_DELLINK, 0, _link_body(name), f"delete link {name}")


def set_group(name: str, group: int) -> Message:
    """Put a link into a group (any 32-bit number; 0 is everybody's)."""
    return Message(RTM_NEWLINK, 0, _link_body(name) + u32(_IFLA_GROUP, group), f"group {name}")


def delete_group(group: int) -> Message:
    """Delete all links of a group in one go."""
    return Message(RTM_DELLINK, 0, _link_body("") + u32(_IFLA_GROUP, group), "delete links")


def get_link(name: str = "", index: int = 0) -> Message:
    """Ask for one link by name or index (answer: ENODEV where there is none)."""
    body = _link_body(name, index=index) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return Message(RTM_GETLINK, 0, body, f"look up link {name or index}")


def list_links(*, counters: bool = False) -> Message:
    """Ask for all links (a dump). counters: with what `parse_counters` reads."""
    body = _link_body("")
    if not counters:
        body += u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return Message(RTM_GETLINK, 0, body, "list links")


def parse_link(message: Message) -> Link:
    """An RTM_NEWLINK answer as a Link; port.bridge is the master's index as text."""
    _family, _type, index, flags, _change = _IFINFO.unpack_from(message.body)
    found = attributes(message.body, _IFINFO.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    mac = found.get(IFLA_ADDRESS, b"")
    return Link(
        name=string(found.get(IFLA_IFNAME, b"")),
        kind=string(info.get(INFO_KIND, b"")),
        mac=mac.hex(":") if mac else None,
        mtu=number(found[IFLA_MTU]) if IFLA_MTU in found else None,
        up=bool(flags & IFF_UP),
        alias=string(found[IFLA_IFALIAS]) if IFLA_IFALIAS in found else None,
        port=_read_port(found, info),
        promisc=bool(flags & IFF_PROMISC),
        index=index,
        arp=not flags & IFF_NOARP,
        allmulti=bool(flags & IFF_ALLMULTI),
        queue_length=number(found[_IFLA_TXQLEN]) if _IFLA_TXQLEN in found else None,
    )


def parse_pair(message: Message) -> tuple[int, int]:
    """(index, other end's index in its own namespace) of an RTM_NEWLINK answer for a veth."""
    return int(_IFINFO.unpack_from(message.body)[2]), parse_peer_index(message)


def parse_operational(message: Message) -> tuple[int, bool]:
    """(index, whether it can send and receive) of an RTM_NEWLINK answer."""
    index = int(_IFINFO.unpack_from(message.body)[2])
    state = first_attribute(message.body, _IFINFO.size, _IFLA_OPERSTATE) or b"\0"
    return index, state[0] in _OPERATIONAL


def parse_peer_index(message: Message) -> int:
    """The other end's index in its own namespace, of an RTM_NEWLINK answer for a veth; 0: none."""
    found = first_attribute(message.body, _IFINFO.size, IFLA_LINK)
    return number(found) if found else 0


def parse_peer_namespace(message: Message) -> int:
    """The number of the namespace that a veth's other end is in (RTM_GETNSID); -1: none known."""
    found = first_attribute(message.body, _IFINFO.size, _IFLA_LINK_NETNSID)
    return int(struct.unpack("=i", found)[0]) if found else -1


def parse_xdp_program(message: Message) -> int:
    """The ID of the XDP program at a link, of an RTM_NEWLINK; 0 where it has none."""
    found = attributes(first_attribute(message.body, _IFINFO.size, _IFLA_XDP) or b"")
    is_attached = any(found.get(_XDP_ATTACHED, b""))
    return number(found.get(_XDP_PROGRAM_ID, bytes(4))) if is_attached else 0


def parse_counters(message: Message) -> Counters:
    """What a link has received and sent, of an RTM_NEWLINK answer; zeros where it has none."""
    found = first_attribute(message.body, _IFINFO.size, _IFLA_STATS64) or b""
    return Counters(*_COUNTERS.unpack_from(found)) if len(found) >= _COUNTERS.size else Counters()


def _read_port(found: dict[int, bytes], info: dict[int, bytes]) -> Port | None:
    if IFLA_MASTER not in found:
        return None
    data = attributes(info.get(_INFO_SLAVE_DATA, b""))
    return Port(
        str(number(found[IFLA_MASTER])),
        hairpin=data.get(_BRPORT_MODE, b"\0") != b"\0",
        isolated=data.get(_BRPORT_ISOLATED, b"\0") != b"\0",
        blocks=data.get(_BRPORT_STATE, _FORWARDING) != _FORWARDING,
    )


def _address_body(address: Address, index: int) -> bytes:
    ip = address.address
    flags = IFA_F_NODAD if ip.version == 6 and not address.dad else 0
    if not address.prefix_route:
        flags |= _IFA_F_NOPREFIXROUTE
    head = _IFADDR.pack(FAMILY[ip.version], ip.network.prefixlen, 0, 0, index)
    body = head + attribute(_IFA_LOCAL, ip.packed) + attribute(_IFA_ADDRESS, ip.packed)
    if ip.version == 4 and ip.network.prefixlen < 31:
        body += attribute(_IFA_BROADCAST, ip.network.broadcast_address.packed)
    body += u8(_IFA_PROTO, address.protocol) if address.protocol else b""
    return body + u32(_IFA_FLAGS, flags)


def add_address(address: Address, index: int) -> Message:
    """Add an address; without duplicate address detection unless that is asked for."""
    what = ("add address", address.address, "to", address.link)
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address_body(address, index), what)


def delete_address(address: Address, index: int) -> Message:
    """Delete an address."""
    what = ("delete address", address.address, "of", address.link)
    return Message(RTM_DELADDR, 0, _address_body(address, index), what)


def list_addresses(index: int = 0) -> Message:
    """Ask for the addresses of one link, or of all (a dump)."""
    return Message(RTM_GETADDR, 0, _IFADDR.pack(0, 0, 0, 0, index), "list addresses")


def parse_address(message: Message) -> tuple[int, Address]:
    """(link index, address) of an RTM_NEWADDR answer; the address's link name is left empty."""
    _family, length, _flags, _scope, index = _IFADDR.unpack_from(message.body)
    found = attributes(message.body, _IFADDR.size)
    raw = found.get(_IFA_LOCAL) or found[_IFA_ADDRESS]
    protocol = found.get(_IFA_PROTO, b"\0")[0]
    return index, Address("", ip_interface((raw, length)), protocol=protocol)


def address_index(message: Message) -> int:
    """The link index of an RTM_NEWADDR answer, without decoding the rest."""
    return int(_IFADDR.unpack_from(message.body)[4])


def is_tentative(message: Message) -> bool:
    """Whether an RTM_NEWADDR answer's address is not to be used yet (RFC 4862: tentative)."""
    return _trial(message) == _IFA_F_TENTATIVE


def is_duplicate(message: Message) -> bool:
    """Whether a neighbour has the address of an RTM_NEWADDR answer: it is never used then."""
    return bool(_trial(message) & _IFA_F_DADFAILED)


def _trial(message: Message) -> int:
    flags = attributes(message.body, _IFADDR.size).get(_IFA_FLAGS)
    return number(flags) & (_IFA_F_TENTATIVE | _IFA_F_DADFAILED) if flags else 0
