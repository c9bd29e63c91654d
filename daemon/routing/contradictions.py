"""What a plan will refuse whatever the node looks like: said before the files are copied to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from daemon.config.schema import Settings
from daemon.model import Node, Snapshot
from daemon.prefix_set import host_span, span_of
from daemon.routing.conflicts import Claims


def find_contradictions(settings: Settings, snapshot: Snapshot) -> Iterator[str]:
    """Everything that keeps a node or a prefix from being reached; nothing where all is right.

    What depends on the node's own links and routes is left to the plan, which is made there. So is
    who keeps what two nodes claim: the one that has it already, which here is nobody.
    """
    me = next((node for node in snapshot.nodes if node.name == settings.node), None)
    if me is None:
        yield f"{settings.node}, this node, is not in the list: nothing will be routed here"
    yield from _find_shared(settings, snapshot)
    if me is not None:
        yield from _find_lacking(settings, me, snapshot)


def _find_shared(settings: Settings, snapshot: Snapshot) -> Iterator[str]:
    addresses, prefixes = Claims(settings.node), Claims(settings.node)
    for node in snapshot.nodes:
        addresses.put(node.name, map(host_span, node.addresses))
        prefixes.put(node.name, map(span_of, node.pod_cidrs))
    for claims in (addresses, prefixes):
        claims.settle()
    for node in snapshot.nodes:
        for address in node.addresses:
            lost = addresses.loss(node.name, host_span(address))
            if lost:
                yield f"{node.name}: its address {address} is that of {lost.node} too"
        for prefix in node.pod_cidrs:
            lost = prefixes.loss(node.name, span_of(prefix))
            if lost:
                yield f"{node.name}: its pod CIDR {prefix} overlaps {lost.span} of {lost.node}"


def _find_lacking(settings: Settings, me: Node, snapshot: Snapshot) -> Iterator[str]:
    underlay = settings.underlay or me.addresses[0].version
    if not me.address(underlay):
        yield f"{me.name}, this node, has no IPv{underlay} address, which `underlay` asks for"
    if not me.pod_cidrs:
        yield f"{me.name}, this node, has no pod CIDR: no pod will be made here"
    families = {a.version for a in me.addresses} | {p.version for p in me.pod_cidrs}
    for node in snapshot.nodes:
        for prefix in node.pod_cidrs if node is not me else ():
            ways = _ways(settings, underlay, prefix.version)
            if prefix.version in families and not any(map(node.address, ways)):
                wanted = " or ".join(f"IPv{version}" for version in sorted(ways))
                yield f"{node.name}: its pod CIDR {prefix} is not reached: no {wanted} address"


def _ways(settings: Settings, underlay: int, version: int) -> set[int]:
    """The families of address by which a back end can reach a prefix of that version."""
    ways: Mapping[str, set[int]] = {
        "vxlan": {underlay},
        "host-gw": {version},
        "hybrid": {underlay, version},
        "none": {4, 6},
    }
    return ways[settings.backend]
