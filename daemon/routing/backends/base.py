"""How another node's pods are reached: through the overlay, or by its address on the same link.

vxlan    route PREFIX via HOP dev podwire-vxlan    HOP: IPv4 the prefix's first address, onlink;
         neighbour HOP is at MAC                        IPv6 the link-local address of MAC
         FDB MAC is behind the peer's address       MAC: from the peer's address
host-gw  route PREFIX via the peer's address dev its link
hybrid   host-gw where the peer is on-link, else vxlan
none     nothing: somebody else routes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_network

from cni_plugin.names import derive_mac
from daemon.config.schema import Settings
from daemon.model import Node
from daemon.prefix_set import Span, span_of
from daemon.routing.desired import Refusal, Unplannable
from daemon.routing.host_state import Ground
from kernel.model import (
    RTPROT_PODWIRE_PEERS,
    SCOPE_HOST,
    SCOPE_UNIVERSE,
    TABLE_LOCAL,
    Address,
    FdbEntry,
    IPAddress,
    IPNetwork,
    Link,
    Neighbour,
    Route,
    Sysctl,
    Vxlan,
)
from kernel.routes import Entry

DEVICE_ALIAS = "podwire: to the pods of other nodes"
# Outer IP header, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348 section 5).
_OVERHEAD = {4: 20 + 30, 6: 40 + 30}
_MTU_MIN, _MTU_MAX = 68, 65535  # RFC 791; ETH_MAX_MTU
_IPV6_MTU_MIN = 1280  # RFC 8200 section 5
_ENCAPSULATES = frozenset({"vxlan", "hybrid"})


@dataclass(frozen=True, slots=True)
class Way:
    """How one prefix of a peer is reached. fdb: what its VTEP needs, the same for all prefixes."""

    prefix: IPNetwork
    span: Span
    entries: tuple[Entry, ...]
    fdb: FdbEntry | None = None


def vtep_mac(address: IPAddress) -> str:
    """The MAC of the VXLAN device of the node with that underlay address: nobody need tell it."""
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


def plan_mtu(settings: Settings, ground: Ground) -> int:
    """The MTU of pods' links and of the VXLAN device, in bytes. Raises Unplannable."""
    overhead = plan_overhead(settings, ground)
    most = min(ground.mtu, _MTU_MAX) - overhead
    if most < _MTU_MIN:
        raise Unplannable(f"{ground.uplink} has an MTU of {ground.mtu}, which leaves pods nothing")
    if settings.mtu > most:
        room = f"{ground.uplink} has {ground.mtu}, {overhead} of it for encapsulation"
        raise Unplannable(f"mtu {settings.mtu} is more than the uplink takes: {room}")
    mtu = settings.mtu or most
    if mtu < _IPV6_MTU_MIN and any(p.version == 6 for p in ground.me.pod_cidrs):
        why = f"IPv6 pods need an MTU of {_IPV6_MTU_MIN} (RFC 8200), and have {mtu}"
        raise Unplannable(f"{why}: {ground.uplink} has {ground.mtu}")
    return mtu


def plan_device(settings: Settings, ground: Ground, mtu: int) -> Link | None:
    """The VXLAN device; None for back ends that encapsulate nothing."""
    if settings.backend not in _ENCAPSULATES:
        return None
    wanted = settings.vxlan
    tunnel = Vxlan(wanted.vni, wanted.port, ground.underlay, ground.uplink)
    return Link(
        wanted.device, "vxlan", vtep_mac(ground.underlay), mtu, alias=DEVICE_ALIAS, vxlan=tunnel
    )


def plan_device_address(device: Link, prefix: IPNetwork) -> Address:
    """The source address of what this node itself sends to pods elsewhere: the prefix's first."""
    # IPAM leaves it alone: ranges begin at the second address.
    if prefix.version == 4:
        return Address(device.name, IPv4Interface(prefix.network_address))
    return Address(device.name, IPv6Interface(prefix.network_address))


def plan_own_route(settings: Settings, prefix: IPNetwork) -> Route | None:
    """The same address where there is no device for it: as a route, for routes carry a mark.

    None where nothing of podwire's leads to this node's pods, and where nobody asks for it.
    """
    if settings.backend != "host-gw" or settings.health is None:
        return None
    return Route(
        ip_network(prefix.network_address),
        "lo",
        scope=SCOPE_HOST if prefix.version == 4 else SCOPE_UNIVERSE,
        table=TABLE_LOCAL,
        protocol=RTPROT_PODWIRE_PEERS,
        local=True,
    )


def plan_overhead(settings: Settings, ground: Ground) -> int:
    """What encapsulation adds to a packet, in bytes."""
    return _OVERHEAD[ground.underlay.version] if settings.backend in _ENCAPSULATES else 0


def plan_sysctls(ground: Ground, device: Link | None) -> Iterator[Sysctl]:
    """What lets packets through, for the families that this node takes part in."""
    links = (ground.uplink, *((device.name,) if device else ()))
    if 4 in ground.families:
        yield Sysctl("net/ipv4/ip_forward", "1")
        # The kernel asks the link that a packet came in by (ip_route_input_slow).
        yield from (Sysctl(f"net/ipv4/conf/{name}/forwarding", "1") for name in links)
    if 6 in ground.families:
        yield Sysctl("net/ipv6/conf/all/forwarding", "1")
    if device is None:
        return
    # Loose: in a hybrid one node may see the other on-link and not the other way round.
    yield Sysctl(f"net/ipv4/conf/{device.name}/rp_filter", "2", required=False)
    if any(p.version == 6 for p in ground.me.pod_cidrs):
        yield Sysctl(f"net/ipv6/conf/{device.name}/disable_ipv6", "0")
    for setting in ("accept_ra", "accept_dad"):
        yield Sysctl(f"net/ipv6/conf/{device.name}/{setting}", "0", required=False)


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, as this one reaches it.

    taken: those of its addresses that it cannot have, and why.
    """

    settings: Settings
    ground: Ground
    node: Node
    taken: Mapping[IPAddress, str]

    def ways(self) -> Iterator[Way | Refusal]:
        """How each of its prefixes is reached, or why it is not."""
        for prefix in self.node.pod_cidrs:
            if prefix.version in self.ground.families:
                way = self._way(prefix)
                yield way if isinstance(way, Way) else Refusal(self.node.name, prefix, way)

    def _way(self, prefix: IPNetwork) -> Way | str:
        backend = self.settings.backend
        if backend == "none":
            return Way(prefix, span_of(prefix), ())
        way = self._direct(prefix) if backend in ("host-gw", "hybrid") else ""
        if isinstance(way, str) and backend in _ENCAPSULATES:
            return self._tunnel(prefix)
        return way

    def _direct(self, prefix: IPNetwork) -> Way | str:
        address = self._address(prefix.version)
        if isinstance(address, str):
            return address
        link = self.ground.link_to(address)
        if not link:
            return f"{address} is not on-link: host-gw needs a common link, vxlan and hybrid do not"
        route = Route(prefix, link, via=address, protocol=RTPROT_PODWIRE_PEERS)
        return Way(prefix, span_of(prefix), (route,))

    def _tunnel(self, prefix: IPNetwork) -> Way | str:
        address = self._address(self.ground.underlay.version)
        if isinstance(address, str):
            return address
        device, mac = self.settings.vxlan.device, vtep_mac(address)
        hop, onlink = vtep_hop(prefix, mac), prefix.version == 4
        neighbour = Neighbour(device, hop, mac)
        route = Route(prefix, device, via=hop, protocol=RTPROT_PODWIRE_PEERS, onlink=onlink)
        return Way(prefix, span_of(prefix), (neighbour, route), FdbEntry(device, mac, address))

    def _address(self, version: int) -> IPAddress | str:
        address = self.node.address(version)
        if address is None:
            return f"the node has no IPv{version} address"
        return self.taken.get(address) or address
