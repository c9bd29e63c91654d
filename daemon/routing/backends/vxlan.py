"""Packets to other nodes' pods are encapsulated (RFC 7348).

route PREFIX via HOP dev podwire-vxlan    HOP: IPv4 the prefix's first address, onlink;
neighbour HOP is at MAC                        IPv6 the link-local address of MAC
FDB MAC is behind the peer's address      MAC: derived from the peer's address
"""

from __future__ import annotations

from ipaddress import IPv6Address

from cni_plugin.names import derive_mac
from daemon.config.schema import Settings
from daemon.model import Node, NoPath
from daemon.prefix_set import block_of
from daemon.routing.backends.base import Backend, PeerPath, RemoteNode, lacking_family
from daemon.routing.host_state import HostView
from kernel.model import (
    RTPROT_PODWIRE_PEERS,
    FdbEntry,
    IPAddress,
    IPNetwork,
    Link,
    Neighbour,
    Route,
    Vxlan,
)

DEVICE_ALIAS = "podwire: to the pods of other nodes"
OVERHEAD = {4: 20 + 30, 6: 40 + 30}
"""In bytes by the underlay's family: outer IP header, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348
section 5)."""


class VxlanBackend(Backend):
    """All peers are reached through the overlay."""

    def __init__(self, settings: Settings) -> None:
        self._vxlan, self._underlay = settings.vxlan, settings.underlay

    @property
    def device(self) -> str:
        """The name of the VXLAN device."""
        return self._vxlan.device

    def overhead(self, host: HostView) -> int:
        """What encapsulation adds to a packet, in bytes."""
        return OVERHEAD[host.underlay.version]

    def plan_device(self, host: HostView, mtu: int) -> Link | None:
        """The VXLAN device. mtu: in bytes."""
        tunnel = Vxlan(self._vxlan.vni, self._vxlan.port, host.underlay, host.uplink)
        mac = vtep_mac(host.underlay)
        return Link(self.device, "vxlan", mac, mtu, alias=DEVICE_ALIAS, vxlan=tunnel)

    def plan_path(self, peer: RemoteNode, prefix: IPNetwork) -> PeerPath | NoPath:
        """Route, neighbour and FDB entry to one prefix of a peer, or why it is not reached."""
        lacking = explain_family(self._underlay, peer.host.me, peer.node)
        address = NoPath(lacking) if lacking else peer.address(peer.host.underlay.version)
        if isinstance(address, NoPath):
            return address
        mac = vtep_mac(address)
        hop, onlink = vtep_hop(prefix, mac), prefix.version == 4
        neighbour = Neighbour(self.device, hop, mac)
        route = Route(prefix, self.device, via=hop, protocol=RTPROT_PODWIRE_PEERS, onlink=onlink)
        fdb = FdbEntry(self.device, mac, address)
        return PeerPath(prefix, block_of(prefix), (neighbour, route), fdb)

    def lacking_address(self, me: Node, peer: Node, version: int) -> str:
        """Packets of both versions are encapsulated in one family."""
        del version
        return explain_family(self._underlay, me, peer)


def explain_family(underlay: int | None, me: Node, peer: Node) -> str:
    """Why packets between two nodes are not encapsulated in one family; empty where they are.

    underlay: the family that the key of this name has. A device encapsulates in one family alone
    (drivers/net/vxlan, vxlan_sock_add), so both ends must have chosen the same.
    """
    own, other = me.underlay(underlay), peer.underlay(underlay)
    if own is None or (other and other.version == own.version):
        return ""
    version = own.version
    common = next((v for v in (4, 6) if me.address(v) and peer.address(v)), None)
    if other is None or common is None:
        return lacking_family(version)
    does = f"encapsulates in IPv{other.version}, and this node in IPv{version}"
    return f"the node {does}: set `underlay: ipv{common}` on all nodes"


def vtep_mac(address: IPAddress) -> str:
    """The MAC of the VXLAN device of the node with that underlay address.

    Every node derives it, so that no node has to publish it.
    """
    return derive_mac("vtep", str(address))


def vtep_hop(prefix: IPNetwork, mac: str) -> IPAddress:
    """The next hop to a prefix behind the VTEP with that MAC."""
    if prefix.version == 4:
        return prefix.network_address
    # The VTEP's link-local address (RFC 4291 appendix A). The kernel takes no other next hop as
    # onlink while a route through another link leads there (net/ipv6/route.c,
    # ip6_route_check_nh_onlink): one of the node's, or the one that is to be replaced.
    raw = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]))
    return IPv6Address(b"\xfe\x80" + bytes(6) + identifier)
