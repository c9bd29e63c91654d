"""Who may send to this node's VXLAN and probes: the daemon's part of the table `inet podwire`.

Where the kernel tracks connections, for whomever, VXLAN between peers is left out: an entry for
each flow of pods would be of no use, and none of its packets is translated.

Packet path: local input, before the filters of others. It comes after translation, so no DNAT leads
around it. What is dropped here leaves no entry in connection tracking, which keeps a connection at
the end of input (nf_confirm). On the forwarding path peers alone reach a peer's ports: the packets
of pods and others, masqueraded, would have this node's address. An overlay between pods passes.
On both paths pods claim no MTU between nodes.

A port is filtered once it is an element of its set. So rules may be loaded while the sets of peers
are still empty, and cut off nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from kernel.diff import Change, Noun, by_key, diff
from kernel.model import Element, IPAddress
from kernel.nftables.set_messages import change_elements, read_sets
from kernel.nftables.table import (
    ADDRESS_TYPES,
    Chain,
    Set,
    Table,
    link_key,
    load,
    open_nft,
    read_counters,
    remove_part,
    table_changes,
)

PROBES_MAX = 500
"""Probes a second that are taken from one address."""
_UNDERLAY = {v: Set("inet", f"peers{v}", (a,)) for v, a in ADDRESS_TYPES.items()}
_PODS = {v: Set("inet", f"pod_peers{v}", (a,)) for v, a in ADDRESS_TYPES.items()}
_RATES = {v: Set("inet", f"probe_rates{v}", (a,), timeout="10s") for v, a in ADDRESS_TYPES.items()}
_TUNNEL, _UPLINKS = Set("inet", "tunnel", ("ifname",)), Set("inet", "uplinks", ("ifname",))
_VXLAN_PORT = Set("inet", "vxlan_port", ("inet_service",))
_PROBE_PORT = Set("inet", "probe_port", ("inet_service",))
# Where peers send to, this node's addresses on the underlay. Masqueraded, a pod's packet to another
# address of this node comes from its node's address, which is a peer's.
_ENDS = {v: (a, "inet_service") for v, a in ADDRESS_TYPES.items()}
_VXLAN_ENDS = {v: Set("inet", f"vxlan_ends{v}", end) for v, end in _ENDS.items()}
_PROBE_ENDS = {v: Set("inet", f"probe_ends{v}", end) for v, end in _ENDS.items()}
# The destination port in the packet that an ICMP error is about, behind an IPv4 header.
_QUOTED_PORTS = Set("inet", "quoted_ports", ("inet_service",), expression="@th,240,16")
SETS = (
    *_UNDERLAY.values(),
    *_PODS.values(),
    _TUNNEL,
    _UPLINKS,
    *_PROBE_ENDS.values(),
    _PROBE_PORT,
    *_VXLAN_ENDS.values(),
    _VXLAN_PORT,
    _QUOTED_PORTS,
)
# Pods are behind such links, and uplinks may be of these kinds, too (a kind node, a bridged host):
# there a packet must come from where the route to its source leads.
_FROM_PODS = 'iifname != @tunnel iifname != @uplinks meta iifkind { "veth", "bridge", "vxlan" }'
_FORGED = f"{_FROM_PODS} fib saddr . iif oif missing"
_NO_VXLAN = 'counter name "vxlan_refused" drop'
_NOT_FORWARDED = 'counter name "pods_refused" drop'
_NO_PROBE = 'counter name "probes_refused" drop'
_VXLAN = {
    v: f"{ip} daddr . udp dport @vxlan_ends{v} {ip} saddr @peers{v} accept"
    for v, ip in ((4, "ip"), (6, "ip6"))
}
_OTHER_PROTOCOLS = "meta l4proto != { udp, icmp, icmpv6 } accept"
# The kernel believes any ICMP error that quotes a probe, or a VXLAN header of the device's VNI
# (vxlan_core.c, vxlan_err_lookup), and sends fragments of the MTU that it claims. Pods may be
# routers of other packets. A quoted header with options or extensions has the port elsewhere.
_TOO_BIG = (
    f"icmp type destination-unreachable icmp code frag-needed {_FROM_PODS}",
    f"icmpv6 type packet-too-big {_FROM_PODS}",
)
_ERRORS = (
    f"{_TOO_BIG[0]} @th,64,8 0x45 @th,240,16 != @quoted_ports accept",
    f"{_TOO_BIG[1]} @th,112,8 != {{ 0, 43, 44, 60 }} @th,400,16 != @quoted_ports accept",
    *(f"{error} {_NOT_FORWARDED}" for error in _TOO_BIG),
    "meta l4proto != udp accept",
)
_OTHER_PORTS = "udp dport != @vxlan_port udp dport != @probe_port accept"
_PREFIXES = (("ip", 4), ("ip6", 6))
_LIMIT = f"limit rate over {PROBES_MAX}/second burst {PROBES_MAX} packets"


def _untracked(hook: str, peer: str) -> Chain:
    """Before connection tracking. peer: the field that has the peer's address.

    Packets of other overlays, between pods and to the outside, are tracked: masquerade needs it.
    """
    rules = (f"udp dport @vxlan_port {ip} {peer} @peers{v} notrack" for ip, v in _PREFIXES)
    return Chain(f"untracked_{hook}", f"type filter hook {hook} priority raw", tuple(rules))


PART = Table(
    "inet",
    sets=(*SETS, *_RATES.values()),
    counters=("vxlan_refused", "probes_refused", "probes_limited", "pods_refused"),
    chains=(
        Chain(
            "peers",
            "type filter hook input priority raw",
            (
                _OTHER_PROTOCOLS,
                _OTHER_PORTS,
                # All of the overlay takes this way; the others cost it 5 % of its throughput.
                f"iifname @uplinks {_VXLAN[4]}",
                f"iifname @uplinks {_VXLAN[6]}",
                *_ERRORS,
                f"udp dport @vxlan_port iifname @tunnel {_NO_VXLAN}",
                f"udp dport @vxlan_port {_FORGED} {_NO_VXLAN}",
                _VXLAN[4],
                _VXLAN[6],
                f"udp dport @vxlan_port {_NO_VXLAN}",
                f"{_FORGED} {_NO_PROBE}",
                # Over the pod network a node sends from its address there.
                f"iifname @tunnel ip saddr != @pod_peers4 {_NO_PROBE}",
                f"iifname @tunnel ip6 saddr != @pod_peers6 {_NO_PROBE}",
                f"ip saddr != @peers4 ip saddr != @pod_peers4 {_NO_PROBE}",
                f"ip6 saddr != @peers6 ip6 saddr != @pod_peers6 {_NO_PROBE}",
                f"ip saddr @peers4 ip daddr . udp dport != @probe_ends4 {_NO_PROBE}",
                f"ip6 saddr @peers6 ip6 daddr . udp dport != @probe_ends6 {_NO_PROBE}",
                f'update @probe_rates4 {{ ip saddr {_LIMIT} }} counter name "probes_limited" drop',
                f'update @probe_rates6 {{ ip6 saddr {_LIMIT} }} counter name "probes_limited" drop',
            ),
        ),
        Chain(
            "pods_to_peers",
            "type filter hook forward priority raw",
            (
                _OTHER_PROTOCOLS,
                _OTHER_PORTS,
                *_ERRORS,
                f"ip daddr @peers4 ip saddr != @peers4 {_NOT_FORWARDED}",
                f"ip6 daddr @peers6 ip6 saddr != @peers6 {_NOT_FORWARDED}",
                f"ip daddr @peers4 {_FORGED} {_NOT_FORWARDED}",
                f"ip6 daddr @peers6 {_FORGED} {_NOT_FORWARDED}",
            ),
        ),
    ),
)


UNTRACKED = Table(
    "inet",
    sets=(_VXLAN_PORT, *_UNDERLAY.values()),
    chains=(_untracked("prerouting", "saddr"), _untracked("output", "daddr")),
)
"""For nodes that track connections; to others it would be an expense of every packet."""


class Dropped(NamedTuple):
    """Packets that were dropped since the table was made.

    vxlan, probes: not from a peer, or to another address than peers send to. limited: probes from a
    peer's address beyond PROBES_MAX. pods: from pods and others by way of this node to these ports
    of peers, and their claims of a smaller MTU between nodes.
    """

    vxlan: int = 0
    probes: int = 0
    limited: int = 0
    pods: int = 0


def node_elements(
    uplink: str,
    tunnel: str,
    addresses: Iterable[IPAddress],
    vxlan_port: int | None,
    probe_port: int | None,
) -> frozenset[Element]:
    """The elements of this node: its links, its addresses on the underlay, and the UDP ports that
    are filtered (None: not)."""
    elements = {_UPLINKS.element(link_key(uplink)), _TUNNEL.element(link_key(tunnel))}
    filtered = ((_VXLAN_PORT, _VXLAN_ENDS, vxlan_port), (_PROBE_PORT, _PROBE_ENDS, probe_port))
    for ports, ends, number in filtered:
        if number is None:
            continue
        port = number.to_bytes(2, "big")
        elements |= {ports.element(port), _QUOTED_PORTS.element(port)}
        # A field of a concatenation is padded to 32 bits (linux/netfilter/nf_tables.h).
        elements |= {ends[a.version].element(a.packed + port + b"\0\0") for a in addresses}
    return frozenset(elements)


def peer_elements(underlay: Iterable[IPAddress], pods: Iterable[IPAddress]) -> frozenset[Element]:
    """The elements of peers: their addresses on the underlay, and those in the pod network."""
    found = {_UNDERLAY[a.version].element(a.packed) for a in underlay}
    return frozenset(found | {_PODS[a.version].element(a.packed) for a in pods})


def admit_peers(elements: Collection[Element]) -> None:
    """Add elements; the others stay. Raises KernelError, with errno ENOENT without the table."""
    with open_nft() as nl:
        change_elements(nl, elements, ())


def filters_peers() -> bool:
    """Whether any port is filtered."""
    with open_nft() as nl:
        return bool(read_sets(nl, (_VXLAN_PORT, _PROBE_PORT)))


def peer_filter_changes(
    desired: frozenset[Element], *, untracked: bool = False
) -> tuple[Change[Noun], ...]:
    """What differs of rules and sets from these elements; changes nothing. Raises KernelError."""
    with open_nft() as nl:
        rules = table_changes(nl, PART + UNTRACKED if untracked else PART)
        return (*rules, *diff(by_key(desired), by_key(read_sets(nl, SETS))))


def ensure_peer_filter(
    desired: frozenset[Element], *, untracked: bool = False
) -> tuple[Change[Noun], ...]:
    """Bring rules and sets to these elements; what differed. Raises KernelError, MissingTool.

    untracked: keep VXLAN out of connection tracking.
    """
    part = PART + UNTRACKED if untracked else PART
    with open_nft() as nl:
        if rules := table_changes(nl, part):
            # Rules of another version may be at work: those of this one find their sets filled.
            load(replace(part, chains=()))
        observed = read_sets(nl, SETS)
        # Peers before ports: the names of the sets sort that way.
        change_elements(nl, desired - observed, observed - desired)
        if rules:
            load(part)
    return (*rules, *diff(by_key(desired), by_key(observed)))


def count_dropped() -> Dropped:
    """What was dropped so far. Raises KernelError."""
    with open_nft() as nl:
        return Dropped(*read_counters(nl, PART.counters))


def remove_peer_filter() -> bool:
    """Remove the filter; whether it was there. Raises KernelError, MissingTool."""
    return remove_part(PART + replace(UNTRACKED, sets=()))
