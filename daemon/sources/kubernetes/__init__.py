"""The cluster as Kubernetes knows it: one small object for each node, watched by all daemons.

    own Node ─▶ OwnObject ─▶ NodeNetwork (own, applied)
    NodeNetworks (listed once, then watched) ─▶ ClusterView ─▶ ClaimCheck ─▶ Feed
                              Worker ─▶ Nodes (of other nodes, where a claim conflicts)

The position of the last known state has the watch's resourceVersion and the own Node's uid: with
another uid it is another cluster, or the Node was made again, and a list is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.config.schema import KubernetesSettings
from daemon.log import Log

if TYPE_CHECKING:
    from daemon.sources.kubernetes.client import KubernetesClient


def open_client(settings: KubernetesSettings, *, node: str, log: Log) -> KubernetesClient:
    """The client for a node of that name. Nothing is opened or imported yet."""
    from daemon.sources.kubernetes.client import KubernetesClient

    return KubernetesClient(settings, node=node, log=log)
