"""Where probes go, and from where: as the plan of routes has it, so that they go as packets do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from daemon.cluster import Node
from daemon.desired import Desired
from daemon.health.wire import Path, pod_path, underlay_path
from kernel.entries import Entry
from kernel.model import FdbEntry, IPAddress, Route


@dataclass(frozen=True, slots=True)
class Target:
    """An address of a node, and the path that leads there."""

    path: Path
    address: IPAddress


@dataclass(frozen=True, slots=True)
class Targets:
    """What is probed of one node.

    mains: what must answer: its address in the pod network of each family; its own addresses where
        nothing of podwire's leads to its pods. below: what those packets travel on.
    tunnelled: whether they are encapsulated.
    """

    mains: tuple[Target, ...] = ()
    below: tuple[Target, ...] = ()
    tunnelled: bool = False

    def __iter__(self) -> Iterator[Target]:
        yield from self.mains
        yield from self.below


def targets_of(node: Node, entries: tuple[Entry, ...]) -> Targets:
    """The targets of a peer, of what leads to its pods."""
    device, carriers = "", dict[IPAddress, None]()
    pods: dict[Path, Target] = {}
    for entry in entries:
        if isinstance(entry, FdbEntry):
            device = entry.link
            carriers[entry.dst] = None
        elif isinstance(entry, Route):
            path = pod_path(entry.dst.version)
            pods.setdefault(path, Target(path, entry.dst.network_address))
            if entry.via is not None and entry.link != device:
                carriers[entry.via] = None
    if not pods:
        return Targets(tuple(_underlay(address) for address in node.addresses))
    return Targets(tuple(pods.values()), tuple(map(_underlay, carriers)), bool(device))


def _underlay(address: IPAddress) -> Target:
    return Target(underlay_path(address.version), address)


def own_targets(desired: Desired) -> tuple[Target, ...]:
    """The addresses that this node probes from and answers at; the first of a path is its main."""
    pods = [address.address.ip for address in desired.device_addresses]
    pods += [e.dst.network_address for e in desired.own if isinstance(e, Route)]
    over_pods = tuple(Target(pod_path(address.version), address) for address in pods)
    return (*over_pods, *map(_underlay, desired.me.addresses))
