"""What every back end offers, and what they share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from typing import Protocol

from daemon.config.schema import Settings
from daemon.model import Node, NoPath, Refusal
from daemon.prefix_set import Block
from daemon.routing.host_state import HostView, Unplannable
from kernel.model import Address, Entry, FdbEntry, IPAddress, IPNetwork, Link, Route

_MTU_MIN, _MTU_MAX = 68, 65535  # RFC 791; ETH_MAX_MTU
_IPV6_MTU_MIN = 1280  # RFC 8200 section 5


@dataclass(frozen=True, slots=True)
class PeerPath:
    """How one prefix of a peer is reached. fdb: the entry of its VTEP, shared by its prefixes."""

    prefix: IPNetwork
    block: Block
    entries: tuple[Entry, ...]
    fdb: FdbEntry | None = None


@dataclass(frozen=True, slots=True)
class RemoteNode:
    """Another node, as this one reaches it.

    taken: those of its addresses that it cannot have, and why.
    """

    node: Node
    host: HostView
    taken: Mapping[IPAddress, NoPath]

    def address(self, version: int) -> IPAddress | NoPath:
        """Its underlay address of that family, or why there is none to use."""
        address = self.node.address(version)
        if address is None:
            return NoPath(lacking_family(version))
        return self.taken.get(address) or address


def lacking_family(version: int) -> str:
    """Why a node is not reached in a family."""
    return f"the node has no IPv{version} address"


class Backend(Protocol):
    """How the pods of other nodes are reached. Defaults are those of one without a device."""

    def __init__(self, settings: Settings) -> None: ...

    @property
    def device(self) -> str:
        """The name of the VXLAN device; empty for a back end that encapsulates nothing."""
        return ""

    def overhead(self, host: HostView) -> int:
        """What encapsulation adds to a packet, in bytes."""
        del host
        return 0

    def plan_device(self, host: HostView, mtu: int) -> Link | None:
        """The VXLAN device; None for a back end that encapsulates nothing. mtu: in bytes."""
        del host, mtu
        return None

    def source_addresses(self, prefixes: Iterable[IPNetwork]) -> Iterator[IPAddress]:
        """The addresses of this node in its own pod CIDRs: the first of each.

        They are the source of what the node itself sends to pods elsewhere. IPAM leaves them alone:
        ranges begin at the second address.
        """
        return (prefix.network_address for prefix in prefixes)

    def plan_own_routes(self, prefixes: Iterable[IPNetwork]) -> Iterator[Route]:
        """Routes that give this node its source addresses where there is no device for them."""
        del prefixes
        return iter(())

    def plan_peer(self, peer: RemoteNode) -> Iterator[PeerPath | Refusal]:
        """How each prefix of a peer is reached, or why it is not."""
        for prefix in peer.node.pod_cidrs:
            if prefix.version in peer.host.families:
                path = self.plan_path(peer, prefix)
                if isinstance(path, PeerPath):
                    yield path
                else:
                    yield Refusal(peer.node.name, prefix, *path)

    def plan_path(self, peer: RemoteNode, prefix: IPNetwork) -> PeerPath | NoPath:
        """How one prefix of a peer is reached, or why it is not."""
        ...

    def lacking_address(self, me: Node, peer: Node, version: int) -> str:
        """Why a peer's addresses leave no path to its prefixes of a version; empty where one is."""
        ...


def plan_device_addresses(device: Link, addresses: Iterable[IPAddress]) -> Iterator[Address]:
    """The source addresses as addresses of the device, without a route to more than themselves."""
    for address in addresses:
        interface = IPv4Interface(address) if address.version == 4 else IPv6Interface(address)
        yield Address(device.name, interface)


def plan_mtu(settings: Settings, host: HostView, overhead: int) -> int:
    """The MTU of pods' links and of the VXLAN device, in bytes. Raises Unplannable."""
    most = min(host.mtu, _MTU_MAX) - overhead
    if most < _MTU_MIN:
        raise Unplannable(f"{host.uplink} has an MTU of {host.mtu}, which leaves pods nothing")
    if settings.mtu > most:
        room = f"{host.uplink} has {host.mtu}, {overhead} of it for encapsulation"
        raise Unplannable(f"mtu {settings.mtu} is more than the uplink takes: {room}")
    return settings.mtu or most


def explain_no_ipv6(host: HostView, mtu: int) -> str:
    """Why pods' links of that MTU carry no IPv6; empty where they do."""
    if mtu >= _IPV6_MTU_MIN:
        return ""
    why = f"IPv6 pods need an MTU of {_IPV6_MTU_MIN} (RFC 8200), and have {mtu}"
    return f"{why}: {host.uplink} has {host.mtu}"
