"""The cluster as every source yields it, and what follows from it for this node; plain values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple, Protocol

from daemon.prefix_set import Block
from kernel.model import Address, Entry, IPAddress, IPNetwork, Link, Sysctl

# A DNS subdomain, as Kubernetes takes it for names of nodes (apimachinery validation.go,
# IsDNS1123Subdomain).
_LABEL = "[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_NAME_MAX = 253
# IPAM can hand out addresses of prefixes that have at least this many host bits.
_HOST_BITS_MIN = 2
# Networks that no node routes to another one.
_UNROUTED: tuple[IPNetwork, ...] = tuple(
    ip_network(n)
    for n in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3"),
        *("::/8", "fe80::/10", "ff00::/8"),
    )
)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the cluster.

    addresses: where it is reached on the underlay, at most one of each family.
    pod_cidrs: the prefixes of its pods, in its order; the first of a family counts as its main one.
    """

    name: str
    addresses: tuple[IPAddress, ...]
    pod_cidrs: tuple[IPNetwork, ...]

    def address(self, version: int) -> IPAddress | None:
        """Its underlay address of that family, if it has one."""
        return next((a for a in self.addresses if a.version == version), None)

    def underlay(self, version: int | None) -> IPAddress | None:
        """The address that encapsulated packets from and to it have.

        version: the family that `underlay` names. None: IPv4 where the node has an address of it,
        else IPv6. That every node decides of every other alike, whatever the order of addresses.
        """
        return self.address(version) if version else self.address(4) or self.address(6)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole cluster at one time; names of nodes are unique.

    cluster_cidrs: prefixes that belong to pods beyond the nodes' own; nothing between the cluster's
    pods is masqueraded.
    """

    nodes: tuple[Node, ...]
    cluster_cidrs: tuple[IPNetwork, ...] = ()


class NoPath(NamedTuple):
    """Why nothing leads to a node or a prefix. node: the other one in conflict, empty for none."""

    why: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A prefix that a node claims and this node does not route, and why.

    other: the node that it is in conflict with; empty for none.
    """

    node: str
    prefix: IPNetwork
    why: str
    other: str = ""

    def __str__(self) -> str:
        return f"{self.prefix} of {self.node}: {self.why}"


@dataclass(frozen=True, slots=True)
class Desired:
    """What this node should have in its kernel for the cluster to be reached.

    me: this node as the source has it.
    pod_cidrs: its prefixes that can be used; without one the node is not ready for pods.
    underlay: its own address that encapsulated packets have as their source.
    uplink: the name of the link that leads to other nodes.
    device: the VXLAN device, with MAC and MTU; None where nothing is encapsulated.
    device_addresses: the source addresses of what the node itself sends to pods elsewhere.
    own_routes: the same where there is no device.
    overhead: what encapsulation adds to a packet, in bytes.
    nodes: all nodes of the snapshot by name, this one too; the same objects as the source's.
    peers: by name of node, all that leads to its pods. The tuple is the same object as in the plan
        before where nothing of that node changed.
    pathless: those of them without a path to any prefix. Where something else routes, those with
        one have no entries either.
    refused: prefixes that were left out.
    tolerated: prefixes that overlap a network of this node, but were in use before it came: they
        stay.
    pod_mtu: of pods' links, in bytes.
    sysctls: what must be set for packets to pass; those of the device once it exists.
    cluster: the addresses of all pods, merged and in order, this node's own among them; packets
        between them are not masqueraded.
    services: addresses that the node has for Services alone: no host port captures them.
    """

    me: Node
    pod_cidrs: tuple[IPNetwork, ...]
    underlay: IPAddress
    uplink: str
    device: Link | None
    device_addresses: tuple[Address, ...]
    own_routes: tuple[Entry, ...]
    overhead: int
    nodes: Mapping[str, Node]
    peers: Mapping[str, tuple[Entry, ...]]
    pathless: frozenset[str]
    refused: tuple[Refusal, ...]
    tolerated: tuple[Refusal, ...]
    pod_mtu: int
    sysctls: tuple[Sysctl, ...]
    cluster: tuple[Block, ...]
    services: frozenset[IPAddress]


@dataclass(frozen=True, slots=True)
class SourceActivity:
    """What a source received since its start.

    last_received: seconds by the monotonic clock; 0 = never. events: changes; bytes: on the wire;
    snapshots: made of them. is_starting: what an earlier daemon knew is in use, and the source was
    neither reached nor found to be away since; its fault says so.
    """

    last_received: float = 0.0
    events: int = 0
    bytes: int = 0
    snapshots: int = 0
    is_starting: bool = False


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations: how many fell into each bucket, the last of which is unbounded; their sum."""

    buckets: tuple[int, ...]
    seconds: float


class Source(Protocol):
    """Where snapshots come from. Losing it changes nothing: the last snapshot stays in use."""

    @property
    def fault(self) -> str:
        """Why the last good snapshot is still in use; empty while it is current."""

    @property
    def activity(self) -> SourceActivity:
        """What it received; to be read from any thread."""

    def fileno(self) -> int | None:
        """A descriptor that is readable when there may be a snapshot; None = poll at intervals."""

    def poll(self) -> Snapshot | None:
        """The newest snapshot if it is another one than the last poll's, else None.

        Nodes that did not change are the same objects as in the snapshot before. Never raises for
        what the source holds: see `fault`.
        """

    def close(self) -> None:
        """Release what the source holds open."""


def keep_same(old: Iterable[Node], fresh: Iterable[Node]) -> tuple[Node, ...]:
    """The fresh nodes, each as the old object where it is equal."""
    by_name = {node.name: node for node in old}
    return tuple(by_name[n.name] if by_name.get(n.name) == n else n for n in fresh)


def parse_node_name(text: str) -> str:
    """A node's name. Raises ValueError saying what it must be."""
    if len(text) > _NAME_MAX:
        raise ValueError(f"must have at most {_NAME_MAX} characters")
    if not _NAME.match(text):
        raise ValueError(
            "must be a DNS subdomain: lower-case letters, digits, - and ., "
            "each part beginning and ending with a letter or digit"
        )
    return text


def parse_node_address(text: str) -> IPAddress:
    """A node's underlay address. Raises ValueError saying what it must be."""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise ValueError("must be an IPv4 or IPv6 address without prefix length") from error
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError("must be an address without zone")
    unrouted = _unrouted(ip_network(address))
    if unrouted:
        raise ValueError(f"must be the address of one node that others reach, not of {unrouted}")
    return address


def parse_prefix(text: str) -> IPNetwork:
    """Any prefix without host bits. Raises ValueError saying what it must be."""
    try:
        prefix = ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError("must be a prefix like 10.244.1.0/24 or fd00:10:244:1::/64") from error
    if "/" not in text or not text.partition("/")[2].isdecimal() or "%" in text:
        raise ValueError("must be a prefix with a prefix length, like 10.244.1.0/24")
    if ip_address(text.partition("/")[0]) != prefix.network_address:
        raise ValueError(f"has host bits set: the prefix is {prefix}")
    return prefix


def parse_pod_cidr(text: str) -> IPNetwork:
    """A prefix of pods. Raises ValueError saying what it must be."""
    prefix = parse_prefix(text)
    unrouted = _unrouted(prefix)
    if unrouted:
        raise ValueError(f"must not overlap {unrouted}, which cannot be pods'")
    longest = prefix.max_prefixlen - _HOST_BITS_MIN
    if prefix.prefixlen > longest:
        raise ValueError(f"is too small for pods: the prefix length must be at most {longest}")
    return prefix


def _unrouted(prefix: IPNetwork) -> IPNetwork | None:
    return next((n for n in _UNROUTED if overlap(n, prefix)), None)


def any_pod(prefix: IPNetwork) -> IPAddress:
    """An address that a pod has, for questions about pods of a prefix.

    The first address of a prefix is the node's, the second the gateway.
    """
    return prefix.network_address + 2


def is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    """Whether all addresses of a prefix are another one's, too."""
    return inner.prefixlen >= outer.prefixlen and overlap(inner, outer)


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    """Whether two prefixes share addresses.

    IPv4Network.overlaps caches what it computes in both: too much memory with thousands of nodes.
    """
    if one.version != other.version:
        return False
    if one.prefixlen > other.prefixlen:
        one, other = other, one
    return other.network_address in one
