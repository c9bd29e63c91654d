"""Other nodes are routers to their pods: route PREFIX via the peer's address dev their common link.

Nothing is encapsulated, so all nodes must be on one link.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from daemon.config.schema import Settings
from daemon.model import Node, NoPath
from daemon.prefix_set import block_of
from daemon.routing.backends.base import Backend, PeerPath, RemoteNode, lacking_family
from kernel.model import (
    RTPROT_PODWIRE_PEERS,
    SCOPE_HOST,
    SCOPE_UNIVERSE,
    TABLE_LOCAL,
    IPNetwork,
    Route,
)


class HostGatewayBackend(Backend):
    """All peers are reached on-link."""

    def __init__(self, settings: Settings) -> None:
        self._has_probes = settings.health is not None

    def plan_own_routes(self, prefixes: Iterable[IPNetwork]) -> Iterator[Route]:
        """The source addresses, which probes alone need, as local routes: those carry our mark."""
        for prefix in prefixes if self._has_probes else ():
            yield Route(
                ip_network(prefix.network_address),
                "lo",
                scope=SCOPE_HOST if prefix.version == 4 else SCOPE_UNIVERSE,
                table=TABLE_LOCAL,
                protocol=RTPROT_PODWIRE_PEERS,
                local=True,
            )

    def plan_path(self, peer: RemoteNode, prefix: IPNetwork) -> PeerPath | NoPath:
        """The route to one prefix of a peer, or why there is none."""
        return plan_direct_path(peer, prefix)

    def lacking_address(self, me: Node, peer: Node, version: int) -> str:
        """A next hop is of the route's own version."""
        del me
        return "" if peer.address(version) else lacking_family(version)


def plan_direct_path(peer: RemoteNode, prefix: IPNetwork) -> PeerPath | NoPath:
    """The route to a prefix by the peer's address, or why there is none."""
    address = peer.address(prefix.version)
    if isinstance(address, NoPath):
        return address
    link = peer.host.on_link.get(address)
    if not link:
        how = "host-gw needs a common link, vxlan and hybrid do not"
        return NoPath(f"{address} is not on-link: {how}")
    route = Route(prefix, link, via=address, protocol=RTPROT_PODWIRE_PEERS)
    return PeerPath(prefix, block_of(prefix), (route,))
