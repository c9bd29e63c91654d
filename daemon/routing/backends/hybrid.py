"""host-gw to peers that are on-link, vxlan to all others."""

from __future__ import annotations

from daemon.model import Node, NoPath
from daemon.routing.backends.base import PeerPath, RemoteNode
from daemon.routing.backends.host_gw import plan_direct_path
from daemon.routing.backends.vxlan import VxlanBackend
from kernel.model import IPNetwork


class HybridBackend(VxlanBackend):
    """What cannot be reached on-link is encapsulated.

    A tunnel of others is no such link: one without neighbours delivers packets by the destinations
    that it was configured with, whatever their next hop is (drivers/net/wireguard/device.c,
    wg_xmit), and of these pods' addresses are none.
    """

    def plan_path(self, peer: RemoteNode, prefix: IPNetwork) -> PeerPath | NoPath:
        """The path to one prefix of a peer, or why there is none."""
        path = plan_direct_path(peer, prefix)
        is_direct = isinstance(path, PeerPath) and self._has_neighbours(peer, prefix)
        return path if is_direct else super().plan_path(peer, prefix)

    @staticmethod
    def _has_neighbours(peer: RemoteNode, prefix: IPNetwork) -> bool:
        address = peer.node.address(prefix.version)
        return address is None or peer.host.on_link.get(address) not in peer.host.tunnels

    def lacking_address(self, me: Node, peer: Node, version: int) -> str:
        """Either path will do."""
        return "" if peer.address(version) else super().lacking_address(me, peer, version)
