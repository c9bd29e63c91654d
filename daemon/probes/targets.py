"""Where probes go, and from where: as the plan of routes has it, so that they go as packets do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from daemon.model import Desired, Node
from daemon.probes.protocol import Path, pod_path, underlay_path
from kernel.model import Entry, FdbEntry, IPAddress, Route

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Target(NamedTuple):
    """An address of a node as sockets write it, and the path that leads there."""

    path: Path
    address: str


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
    pods: dict[int, Target] = {}
    for entry in entries:
        if isinstance(entry, Route):
            version = entry.dst.version
            if version not in pods:
                pods[version] = _pods(entry.dst.network_address)
            if entry.via is not None and entry.link != device:
                carriers[entry.via] = None
        elif isinstance(entry, FdbEntry):
            device = entry.link
            carriers[entry.dst] = None
    if not pods:
        return Targets(tuple(map(_underlay, node.addresses)))
    return Targets(tuple(pods.values()), tuple(map(_underlay, carriers)), bool(device))


def _pods(address: IPAddress) -> Target:
    return Target(pod_path(address.version), _text(address))


def _underlay(address: IPAddress) -> Target:
    return Target(underlay_path(address.version), _text(address))


def _text(address: IPAddress) -> str:
    # Not str(): it writes some of IPv6 otherwise (RFC 5952 section 5).
    return socket.inet_ntop(_FAMILIES[address.version], address.packed)


def own_targets(desired: Desired) -> tuple[Target, ...]:
    """The addresses that this node probes from and answers at; the first of a path is its main."""
    pods = [address.address.ip for address in desired.device_addresses]
    pods += [e.dst.network_address for e in desired.own_routes if isinstance(e, Route)]
    return (*map(_pods, pods), *map(_underlay, desired.me.addresses))
