"""The plan of this node, made as the daemon makes it, whether that runs or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daemon.config import DEFAULT_CONFIG, LAST_KNOWN
from daemon.config.schema import Settings
from daemon.config.yaml import FILE_MAX, FileFault
from daemon.files import open_regular
from daemon.model import Desired, Snapshot
from daemon.options import Unusable, settings_of
from daemon.routing.host_state import HostState, UnderlayPaths, Unplannable, read_host_state
from daemon.routing.planner import Planner
from daemon.sources.cache import Unreadable, load
from daemon.sources.static import parse_nodes
from kernel.diff import Key
from kernel.model import Entry
from kernel.netlink.socket import Netlink
from kernel.routes import read_entries


@dataclass(frozen=True, slots=True)
class Planned:
    """What the node should have, beside what it has.

    desired: None where the node cannot be planned; fault says why. entries: what leads to other
    nodes now. snapshot: the cluster, None where it is not known; source_fault says why.
    """

    host: HostState
    entries: dict[Key, Entry]
    desired: Desired | None = None
    fault: str = ""
    source_fault: str = ""
    snapshot: Snapshot | None = None


def require_settings(config: Path | None) -> Settings:
    """The daemon's settings. Raises Unusable, also where there are none."""
    settings = settings_of(config)
    if settings is None:
        raise Unusable(f"there is no {DEFAULT_CONFIG}: name the daemon's configuration (--config)")
    return settings


def read_snapshot(settings: Settings) -> tuple[Snapshot | None, str]:
    """The cluster as this node knows it without asking others, or why it is not known."""
    path = settings.source.static
    if path is None:
        return _read_last_known(settings.data_dir / LAST_KNOWN)
    try:
        with open_regular(path) as file:
            return parse_nodes(file.read(FILE_MAX + 1), path), ""
    except OSError as error:
        return None, f"{path}: could not be read: {error.strerror}"
    except FileFault as error:
        return None, str(error)


def _read_last_known(path: Path) -> tuple[Snapshot | None, str]:
    try:
        known = load(path)
    except Unreadable as error:
        return None, f"the last known state of the cluster, {path}, {error}"
    if known is None:
        return None, f"there is no {path}: the daemon has never received the cluster's nodes"
    return Snapshot(known.nodes, known.cluster_cidrs), ""


def plan_node(nl: Netlink, settings: Settings) -> Planned:
    """Read node and cluster, and plan. Raises KernelError."""
    snapshot, fault = read_snapshot(settings)
    host = read_host_state(nl)
    entries = read_entries(nl, settings.vxlan.device)
    if snapshot is None:
        return Planned(host, entries, source_fault=fault)
    paths = UnderlayPaths().read(nl, snapshot.nodes, settings.node)
    try:
        desired = Planner(settings).plan(snapshot, host, paths, entries.values())
    except Unplannable as error:
        return Planned(host, entries, fault=str(error), snapshot=snapshot)
    return Planned(host, entries, desired, snapshot=snapshot)
