"""Something else routes to other nodes' pods: podwire makes no path to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon.config.schema import Settings
from daemon.model import Node, NoPath
from daemon.prefix_set import block_of
from daemon.routing.backends.base import Backend, PeerPath, RemoteNode
from kernel.model import IPAddress, IPNetwork


class NoBackend(Backend):
    """Peers count, but nothing leads to them."""

    def __init__(self, settings: Settings) -> None:
        del settings

    def source_addresses(self, prefixes: Iterable[IPNetwork]) -> Iterator[IPAddress]:
        """None: what this node sends has whatever address the routes of others give it."""
        del prefixes
        return iter(())

    def plan_path(self, peer: RemoteNode, prefix: IPNetwork) -> PeerPath | NoPath:
        """A path of no entries."""
        del peer
        return PeerPath(prefix, block_of(prefix), ())

    def lacking_address(self, me: Node, peer: Node, version: int) -> str:
        """Nothing: podwire does not need the peer's address."""
        del me, peer, version
        return ""
