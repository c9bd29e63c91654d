"""What nodes own already when the daemon starts, read from the kernel's entries of the one before.

Without it a restart could give a prefix that two nodes claim to the other of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from daemon.model import Node
from daemon.prefix_set import Block, block_of, host_block
from daemon.routing.backends.vxlan import vtep_mac
from daemon.routing.conflicts import Adopted
from kernel.model import Entry, IPAddress, Neighbour, Route


def adopt(entries: Iterable[Entry], nodes: Iterable[Node]) -> Adopted:
    """The nodes that the entries lead to, with what they lead to.

    A route leads to a node by its address (host-gw), or to a neighbour with the MAC that is derived
    from its address (vxlan). Where nodes share an address, it is the one that claims the prefix.
    """
    found = list(entries)
    macs = {(n.link, n.address): n.mac for n in found if isinstance(n, Neighbour)}
    by_key = _by_key(nodes) if found else {}
    prefixes: dict[Block, str] = {}
    addresses: dict[Block, str] = {}
    for route in found:
        if not isinstance(route, Route) or route.via is None:
            continue
        for node, address in by_key.get(macs.get((route.link, route.via)) or str(route.via), ()):
            if route.dst in node.pod_cidrs:
                prefixes.setdefault(block_of(route.dst), node.name)
                addresses.setdefault(host_block(address), node.name)
    return Adopted(prefixes, addresses)


def _by_key(nodes: Iterable[Node]) -> dict[str, list[tuple[Node, IPAddress]]]:
    by_key: dict[str, list[tuple[Node, IPAddress]]] = {}
    for node in nodes:
        for address in node.addresses:
            for key in (str(address), vtep_mac(address)):
                by_key.setdefault(key, []).append((node, address))
    return by_key
