"""How full the node's and the cluster's prefixes are, from store and source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cni_plugin.host import DEFAULT_INDEX
from cni_plugin.store_index import find_stores
from ctl.address_plan import pods_of
from daemon.config.schema import Settings
from daemon.model import Node, overlap
from ipam.store import read_store
from ipam.usage import Usage, read_usage
from kernel.model import IPNetwork

_FULL = 0.9
"""The share of addresses, or of prefixes, in use that is nearly all."""
_PATIENCE = 1.0  # seconds to wait for a store that others lock


@dataclass(frozen=True, slots=True)
class Space:
    """Something that fills up. used, size: addresses of pods, or prefixes of nodes."""

    name: str
    what: str
    used: int
    size: int
    note: str = ""

    @property
    def is_full(self) -> bool:
        """Whether nearly all is in use."""
        return self.used >= self.size * _FULL


def node_spaces(settings: Settings, own: Sequence[IPNetwork]) -> Iterator[Space]:
    """The addresses of this node's prefixes. Raises IpamError."""
    usage = {(u.network, u.version): u for u in read_usages(settings.data_dir)}
    network = settings.conflist.name if settings.conflist else ""
    for prefix in own:
        found = usage.get((network, prefix.version), Usage(network, prefix.version))
        resting = f"{found.resting} rest" if found.resting else ""
        size = pods_of(prefix.version, prefix.prefixlen)
        yield Space(str(prefix), "addresses", found.allocated, size, resting)


def read_usages(data_dir: Path) -> Iterator[Usage]:
    """How full the ranges of all stores of this node are. Raises IpamError."""
    for folder in find_stores(DEFAULT_INDEX, data_dir):
        yield from read_store(folder, read_usage, _PATIENCE) or ()


def cluster_spaces(
    cluster: Sequence[IPNetwork], nodes: Sequence[Node], own: Sequence[IPNetwork]
) -> Iterator[Space]:
    """How many prefixes as long as this node's the cluster's have room for."""
    for prefix in cluster:
        mine = next(
            (p for p in own if overlap(p, prefix) and p.prefixlen >= prefix.prefixlen), None
        )
        if mine is not None:
            size = 1 << (mine.prefixlen - prefix.prefixlen)
            yield Space(str(prefix), "prefixes", len(nodes), size, f"/{mine.prefixlen} for a node")
