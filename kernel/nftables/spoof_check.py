"""What a pod may send: its own addresses and, on a bridge, its own MAC (port security).

Packet path: a routed pair's packets are checked before connection tracking (`inet`), its ARP where
it is received (`arp`); a bridge port's frames before they are forwarded (`bridge`). There a pod
claims an address as the sender of ARP, as the target of a neighbour advertisement and of duplicate
address detection; a router's messages claim the gateway's role, and queries for the members of
groups that of a multicast router. Nested VLAN tags are dropped, for they hide what they carry.
Receivers ignore tags of VLAN 0 (net/core/dev.c), while br_netfilter shows no frame with a tag to
the filters of packets, which network policies are: such frames are dropped, too.

What is dropped is matched by `meta protocol`: the Ethernet header's type, which nft would take for
ICMPv6, shows a single tag as well (net/netfilter/nft_payload.c).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from kernel.model import HOST_LINK_PREFIX, Element, IPAddress, IPNetwork
from kernel.netlink.codec import mac_bytes
from kernel.netlink.socket import Netlink
from kernel.nftables.set_messages import read_sets
from kernel.nftables.table import Chain, Set, Table, disjoint, link_key

_CHECKED_PORTS = Set("bridge", "checked_ports", ("ifname",))
_ALLOWED_MACS = Set("bridge", "allowed_macs", ("ifname", "ether_addr"))
_CHECKED = {f: Set(f, "checked_sources", ("ifname",)) for f in ("arp", "bridge", "inet")}


class _Allowed(NamedTuple):
    """What a field of a family's packets may hold."""

    version: int
    addresses: Set
    prefixes: Set


def _allow(family: str, version: int, what: str = "", expression: str = "") -> _Allowed:
    fields = ("ifname", f"ipv{version}_addr")
    return _Allowed(
        version,
        Set(family, f"allowed_{what}addresses{version}", fields, expression=expression),
        Set(family, f"allowed_{what}prefixes{version}", fields, True, expression=expression),
    )


# The target address in neighbour discovery (RFC 4861 section 4), by a name only since nft 1.0.7.
_TARGET = "iifname . @th,64,128"
_ALLOWED = (
    _allow("arp", 4),
    _allow("bridge", 4),
    _allow("bridge", 6),
    _allow("bridge", 6, "target_", _TARGET),
    _allow("inet", 4),
    _allow("inet", 6),
)
SETS = (
    _CHECKED_PORTS,
    _ALLOWED_MACS,
    *_CHECKED.values(),
    *(a_set for each in _ALLOWED for a_set in (each.addresses, each.prefixes)),
)

_ND, _SOLICIT = "meta protocol ip6 icmpv6 type", "nd-neighbor-solicit"
_UNSPECIFIED = f"ip6 saddr :: {_ND}"
_REPORTS = "{ mld-listener-report, mld-listener-done, mld2-listener-report }"
_ROUTED = (
    f'iifname != "{HOST_LINK_PREFIX}*" accept',
    "iifname . ip saddr @allowed_addresses4 accept",
    "iifname . ip6 saddr @allowed_addresses6 accept",
    "iifname != @checked_sources accept",
    "iifname . ip saddr @allowed_prefixes4 accept",
    "iifname . ip6 saddr @allowed_prefixes6 accept",
    f"{_UNSPECIFIED} {_SOLICIT} accept",
    f"{_UNSPECIFIED} {_REPORTS} accept",
    "counter drop",
)
_ARP = (
    "iifname . arp saddr ip @allowed_addresses4 accept",
    "iifname . arp saddr ip @allowed_prefixes4 accept",
    "arp saddr ip 0.0.0.0 accept",
)
# Where a multicast router is known, the bridge forwards multicast, with neighbour solicitations, to
# routers and to known members of groups alone (net/bridge/br_multicast.c,
# br_multicast_select_querier, br_multicast_mark_router). Numbers: router discovery (RFC 4286), and
# PIM (RFC 7761), whose name nft looks up in /etc/protocols, which an image need not have.
_IGMP_REPORTS = "{ membership-report-v1, membership-report-v2, leave-group, membership-report-v3 }"
_ROUTERS = "{ nd-router-advert, nd-redirect, mld-listener-query, 151, 153 }"
# The tag's type, then its VLAN; the kernel removed the tag, and shows it (nft_payload_copy_vlan).
_PRIORITY_TAG = "@ll,96,16 { 0x8100, 0x88a8 } @ll,112,16 & 0x0fff == 0"
_BRIDGED = (
    "iifname @checked_ports iifname . ether saddr != @allowed_macs drop",
    f"{_PRIORITY_TAG} iifname @checked_sources counter drop",
    # Most packets end here; the rest is what claims something.
    "iifname . ip saddr @allowed_addresses4 ip protocol != { igmp, 103 } accept",
    "iifname . ip6 saddr @allowed_addresses6 meta l4proto != icmpv6 accept",
    "iifname != @checked_sources accept",
    f"iifname . ip saddr @allowed_addresses4 ip protocol igmp igmp type {_IGMP_REPORTS} accept",
    "meta protocol ip ip protocol { igmp, 103 } counter drop",
    f"{_ND} {_ROUTERS} counter drop",
    # It may hide the target address; receivers ignore it (RFC 6980), unless it was put together on
    # the way, as br_netfilter does.
    f"{_ND} {{ {_SOLICIT}, nd-neighbor-advert }} exthdr frag exists counter drop",
    f"{_ND} nd-neighbor-advert {_TARGET} != @allowed_target_addresses6"
    f" {_TARGET} != @allowed_target_prefixes6 counter drop",
    "iifname . ip6 saddr @allowed_addresses6 accept",
    *_ARP,
    "iifname . ip saddr @allowed_prefixes4 accept",
    "iifname . ip6 saddr @allowed_prefixes6 accept",
    f"{_UNSPECIFIED} {_SOLICIT} {_TARGET} @allowed_target_addresses6 accept",
    f"{_UNSPECIFIED} {_SOLICIT} {_TARGET} @allowed_target_prefixes6 accept",
    f"{_UNSPECIFIED} {_REPORTS} accept",
    "meta protocol { ip, ip6, arp, 0x8100, 0x88a8 } counter drop",
)


def _part(family: str, name: str, hook: str, rules: tuple[str, ...]) -> Table:
    chain = Chain(name, f"type filter hook {hook}", rules)
    return Table(family, tuple(s for s in SETS if s.family == family), (chain,))


PARTS = {
    "arp": _part(
        "arp", "input", "input priority filter", (*_ARP, "iifname @checked_sources counter drop")
    ),
    "bridge": _part("bridge", "prerouting", "prerouting priority dstnat", _BRIDGED),
    "inet": _part("inet", "sources", "prerouting priority raw", _ROUTED),
}
"""By family."""


def spoof_check_elements(port: str, mac: str) -> tuple[Element, Element]:
    """The elements that hold a bridge port to one MAC address."""
    # A field of a concatenation is padded to 32 bits (linux/netfilter/nf_tables.h).
    raw = mac_bytes(mac).ljust(8, b"\0")
    return _ALLOWED_MACS.element(link_key(port) + raw), _CHECKED_PORTS.element(link_key(port))


def source_check_elements(
    link: str,
    addresses: Collection[IPAddress],
    prefixes: Collection[IPNetwork] = (),
    *,
    bridged: bool,
) -> tuple[Element, ...]:
    """The elements that hold a pod to these source addresses.

    link: the node's end of the pair; bridged: whether it is a port of a bridge.
    """
    families = ("bridge",) if bridged else ("arp", "inet")
    name = link_key(link)
    checked = (_CHECKED[family].element(name) for family in families)
    allowed = _allowed_elements(name, families, addresses, disjoint(prefixes))
    return (*allowed, *checked)


def has_source_check(elements: Collection[Element]) -> bool:
    """Whether these elements of a pod hold it to its addresses."""
    return any(element.set_name == _CHECKED["inet"].name for element in elements)


def other_mac_elements(
    present: Collection[Element], link: str, mac: str, own: IPAddress
) -> tuple[Element, ...]:
    """The elements that let a pod use one more MAC address, where it is held to another.

    present: those that its attachment has; own: the link-local address that follows from the MAC.
    """
    name = link_key(link)
    elements: tuple[Element, ...] = ()
    if _CHECKED_PORTS.element(name) in present:
        elements = spoof_check_elements(link, mac)
    for family, bridged in (("bridge", True), ("inet", False)):
        if _CHECKED[family].element(name) in present:
            elements += source_check_elements(link, [own], bridged=bridged)
    return elements


def _allowed_elements(
    name: bytes,
    families: Collection[str],
    addresses: Collection[IPAddress],
    prefixes: Collection[IPNetwork],
) -> Iterator[Element]:
    for version, single, ranges in _ALLOWED:
        if single.family not in families:
            continue
        for address in addresses:
            if address.version == version:
                yield single.element(name + address.packed)
        for prefix in prefixes:
            if prefix.version == version:
                first, last = prefix.network_address, prefix.broadcast_address
                yield ranges.element(name + first.packed, name + last.packed)


def checks_of(nl: Netlink, link: str) -> tuple[Element, ...]:
    """The elements of both checks that a link has, found by its name."""
    name = link_key(link)
    return tuple(e for e in read_sets(nl, SETS) if e.key.startswith(name))
