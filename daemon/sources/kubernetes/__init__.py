"""The cluster as Kubernetes knows it: one small object for each node, watched by all daemons.

    Node (own, read) ─▶ Presence ─▶ NodeNetwork (own, applied)
                Succession (own chain) ─┘
    NodeNetworks (listed once, then watched) ─▶ Picture ─▶ Roster ─▶ Feed
             Pins (others' newest tokens) ───────┘
                                      Chores ─▶ Nodes (others', read where a claim is in doubt)

A position of the last known state has the watch's resourceVersion and the own Node's uid (another
one is another cluster, or another life of the node, and begins with a list), and what was not
believed or has left; see saved. Its notes are the pins of that moment.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from daemon.config.schema import KubernetesSettings
from daemon.log import Log

if TYPE_CHECKING:
    from daemon.sources.kubernetes.client import KubernetesClient


def open_client(
    settings: KubernetesSettings, *, node: str, data_dir: Path, log: Log
) -> KubernetesClient:
    """What listens to the API for a node of that name. Nothing is opened or imported yet."""
    from daemon.sources.kubernetes.client import KubernetesClient

    return KubernetesClient(settings, node=node, data_dir=data_dir, log=log)
