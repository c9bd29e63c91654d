"""Who has what already, as the kernel's entries of an earlier daemon tell it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from daemon.model import Node
from daemon.prefix_set import Span, host_span, span_of
from daemon.routing.backends.base import vtep_mac
from kernel.model import IPAddress, Neighbour, Route
from kernel.routes import Entry


def find_incumbents(
    entries: Iterable[Entry], nodes: Iterable[Node]
) -> tuple[dict[Span, str], dict[Span, str]]:
    """(prefixes, addresses) with the name of the node that has each.

    A route leads to a node by its address (host-gw), or to a neighbour with the MAC that follows
    from its address (vxlan). Where nodes share an address, it is the one that claims the prefix.
    """
    found = list(entries)
    macs = {(n.link, n.address): n.mac for n in found if isinstance(n, Neighbour)}
    by_key = _by_key(nodes) if found else {}
    prefixes: dict[Span, str] = {}
    addresses: dict[Span, str] = {}
    for route in found:
        if not isinstance(route, Route) or route.via is None:
            continue
        for node, address in by_key.get(macs.get((route.link, route.via)) or str(route.via), ()):
            if route.dst in node.pod_cidrs:
                prefixes.setdefault(span_of(route.dst), node.name)
                addresses.setdefault(host_span(address), node.name)
    return prefixes, addresses


def _by_key(nodes: Iterable[Node]) -> dict[str, list[tuple[Node, IPAddress]]]:
    by_key: dict[str, list[tuple[Node, IPAddress]]] = {}
    for node, address in _addresses(nodes):
        for key in (str(address), vtep_mac(address)):
            by_key.setdefault(key, []).append((node, address))
    return by_key


def _addresses(nodes: Iterable[Node]) -> Iterator[tuple[Node, IPAddress]]:
    return ((node, address) for node in nodes for address in node.addresses)
