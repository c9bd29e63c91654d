"""What this node should have in its kernel for the cluster to be reached; plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.model import Node
from daemon.prefix_set import Span
from kernel.model import Address, IPAddress, IPNetwork, Link, Sysctl
from kernel.routes import Entry


class Unplannable(Exception):
    """This node cannot be planned now: whatever it has should stay as it is.

    The text says why: the source does not know the node, its address is on no link, its MTU is
    impossible.
    """


@dataclass(frozen=True, slots=True)
class Refusal:
    """A prefix that a node claims and does not get here; why names what it collides with."""

    node: str
    prefix: IPNetwork
    why: str

    def __str__(self) -> str:
        return f"{self.prefix} of {self.node}: {self.why}"


@dataclass(frozen=True, slots=True)
class Desired:
    """This node's share of the cluster.

    me: this node as the source has it.
    pod_cidrs: its prefixes that can be used; the node is ready for pods where there is one.
    underlay: its own address that encapsulated packets have as their source.
    uplink: the name of the link that leads to other nodes.
    device: the VXLAN device, with MAC and MTU; None where nothing is encapsulated.
    device_addresses: the source addresses of what the node itself sends to pods elsewhere.
    own: the same where there is no device; the same object as before where it did not change.
    overhead: what encapsulation adds to a packet, in bytes.
    nodes: all nodes of the snapshot by name, this one too; the same objects as the source's.
    peers: by name of node, all that leads to its pods (empty for one that cannot be reached). The
        tuple is the same object as in the plan before where nothing of that node changed.
    refused: prefixes that were left out.
    tolerated: prefixes that collide with a network of this node, but were in use before it came:
        they stay.
    pod_mtu: of pods' links, in bytes.
    sysctls: what must be set for packets to pass; those of the device once it exists.
    cluster: all addresses of pods, which nothing on the way to is masqueraded; merged, in order.
    """

    me: Node
    pod_cidrs: tuple[IPNetwork, ...]
    underlay: IPAddress
    uplink: str
    device: Link | None
    device_addresses: tuple[Address, ...]
    own: tuple[Entry, ...]
    overhead: int
    nodes: Mapping[str, Node]
    peers: Mapping[str, tuple[Entry, ...]]
    refused: tuple[Refusal, ...]
    tolerated: tuple[Refusal, ...]
    pod_mtu: int
    sysctls: tuple[Sysctl, ...]
    cluster: tuple[Span, ...]
