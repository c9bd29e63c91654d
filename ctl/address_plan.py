"""Sizes of an address plan; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from daemon.model import overlap
from ipam.ranges import build_range, gateways_of, size_of
from kernel.model import IPNetwork

IPV6_NODE_LENGTH = 64
"""The prefix length of a node's IPv6 pods: no cluster needs less, and Kubernetes gives that."""
_LONGEST = {4: 30, 6: 126}  # a pod CIDR has two host bits at least (daemon.model.parse_pod_cidr)
_SHORTEST = {4: 8, 6: 16}
# Private (RFC 1918, RFC 6598), in the order in which they are suggested.
_PRIVATE = tuple(
    map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
)
_USUAL: Mapping[int, IPNetwork] = {
    4: IPv4Network("10.244.0.0/16"),
    6: IPv6Network("fd00:10:244::/48"),
}


class NoPlan(ValueError):
    """There is no such plan; the message says why."""


@dataclass(frozen=True, slots=True)
class FamilyPlan:
    """A plan of one address family.

    node_length, cluster_length: prefix lengths of a node's pods and of all. pods_max: that a node's
    prefix has addresses for; nodes_max: whose prefixes the cluster's has room for.
    """

    version: int
    node_length: int
    cluster_length: int
    pods_max: int
    nodes_max: int


def plan_family(version: int, nodes: int, pods: int, cluster_length: int = 0) -> FamilyPlan:
    """The smallest prefixes that do. Raises NoPlan.

    cluster_length: of a cluster prefix that is given; 0 for the smallest.
    """
    node_length = IPV6_NODE_LENGTH if version == 6 else _node_length(pods)
    if cluster_length > node_length:
        raise NoPlan(f"a /{cluster_length} has no room for the /{node_length} of one node")
    length = cluster_length or node_length - (nodes - 1).bit_length()
    if length < _SHORTEST[version]:
        raise NoPlan(f"{nodes} nodes with {pods} pods each need more than a /{_SHORTEST[version]}")
    room = 1 << (node_length - length)
    return FamilyPlan(version, node_length, length, pods_of(version, node_length), room)


def _node_length(pods: int) -> int:
    for length in range(_LONGEST[4], _SHORTEST[4], -1):
        if pods_of(4, length) >= pods:
            return length
    raise NoPlan(f"no IPv4 prefix of a node has {pods} addresses")


def pods_of(version: int, length: int) -> int:
    """How many pods a prefix of that length has addresses for, by IPAM's own account.

    The first address is the node's, the second the gateway's, the last of IPv4 is for broadcast.
    """
    kind = IPv4Network if version == 4 else IPv6Network
    found = build_range(kind((0, length)))
    return size_of((found,), gateways_of([(found,)]))


def find_overlaps(prefix: IPNetwork, networks: Iterable[tuple[IPNetwork, str]]) -> list[str]:
    """The networks that share addresses with a prefix, each with its link."""
    found = {(n, link) for n, link in networks if n.prefixlen and overlap(n, prefix)}
    return [f"{n} on {link}" if link else f"{n}" for n, link in sorted(found, key=str)]


def suggest(version: int, length: int, networks: Collection[tuple[IPNetwork, str]]) -> str:
    """A private prefix of that length which overlaps none of the networks; empty for none."""
    for prefix in _private(version, length):
        if not find_overlaps(prefix, networks):
            return str(prefix)
    return ""


def _private(version: int, length: int) -> Iterator[IPNetwork]:
    usual = _USUAL[version]
    if length >= usual.prefixlen:
        yield _first_of(usual, length)
    elif version == 6:
        yield usual.supernet(new_prefix=length)
    for network in _PRIVATE if version == 4 else ():
        if length >= network.prefixlen:
            # Of small prefixes one in each /16 is enough to choose from.
            for wide in network.subnets(new_prefix=max(network.prefixlen, min(length, 16))):
                yield _first_of(wide, length)


def _first_of(wide: IPNetwork, length: int) -> IPNetwork:
    kind = IPv4Network if wide.version == 4 else IPv6Network
    return kind((int(wide.network_address), length))
