"""host-gw to peers that are on-link, vxlan to all others."""

from __future__ import annotations

from daemon.model import Node, NoPath
from daemon.routing.backends.base import PeerPath, RemoteNode
from daemon.routing.backends.host_gw import plan_direct_path
from daemon.routing.backends.vxlan import VxlanBackend
from kernel.model import IPNetwork


class HybridBackend(VxlanBackend):
    """What cannot be reached on-link is encapsulated."""

    def plan_path(self, peer: RemoteNode, prefix: IPNetwork) -> PeerPath | NoPath:
        """The path to one prefix of a peer, or why there is none."""
        path = plan_direct_path(peer, prefix)
        return super().plan_path(peer, prefix) if isinstance(path, NoPath) else path

    def lacking_address(self, me: Node, peer: Node, version: int) -> str:
        """Either path will do."""
        return "" if peer.address(version) else super().lacking_address(me, peer, version)
