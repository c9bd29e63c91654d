"""nodes.yaml: the nodes of a cluster, written by hand or by a tool."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from daemon.config.yaml import Fault, Item, load
from daemon.config.yamlread import Section, list_items, read_list, read_parsed
from daemon.model import (
    Node,
    Snapshot,
    overlap,
    parse_node_address,
    parse_node_name,
    parse_pod_cidr,
    parse_prefix,
)
from kernel.model import IPAddress, IPNetwork

T = TypeVar("T")

_read_name = read_parsed(parse_node_name)
_read_address = read_parsed(parse_node_address)
_read_pod_cidr = read_parsed(parse_pod_cidr)
_read_cluster_cidrs = read_list(read_parsed(parse_prefix))
_FAMILY = {4: "IPv4", 6: "IPv6"}


def parse_nodes(data: bytes, file: Path | str) -> Snapshot:
    """The cluster in a file's content; `file` is what errors call it. Raises FileFault.

    What one node's entry says must fit together; whether nodes contradict each other is for the
    plan to say, which keeps the good ones going.
    """
    return load(data, file, _read_snapshot)


def has_end_mark(data: bytes) -> bool:
    """Whether the file's last line is the mark of a document's end, `...` (YAML 1.1, 9.1.2)."""
    return data.rstrip().endswith(b"\n...")


def _read_snapshot(root: Item) -> Snapshot:
    section = Section(root, ("clusterCIDRs", "nodes"))
    nodes = section.require("nodes", _read_nodes)
    return Snapshot(nodes, section.get("clusterCIDRs", _read_cluster_cidrs, ()))


def _read_nodes(item: Item) -> tuple[Node, ...]:
    lines: dict[str, int] = {}
    nodes = []
    for member in list_items(item):
        node = _read_node(member)
        if node.name in lines:
            why = f"the name {node.name} is that of the node in line {lines[node.name]} too"
            raise Fault(member, why, shown=False)
        lines[node.name] = member.line
        nodes.append(node)
    if not nodes:
        raise Fault(item, "must list a node at least: this one", shown=False)
    return tuple(nodes)


def _read_node(item: Item) -> Node:
    section = Section(item, ("name", "addresses", "podCIDRs"))
    name = section.require("name", _read_name)
    addresses = section.require("addresses", _read_addresses)
    # No less than the address: else half of an entry would be an entry.
    cidrs = section.require("podCIDRs", partial(_read_pod_cidrs, addresses=addresses))
    return Node(name, addresses, cidrs)


def _read_addresses(item: Item) -> tuple[IPAddress, ...]:
    pairs = _read_pairs(item, _read_address)
    seen: dict[int, IPAddress] = {}
    for member, address in pairs:
        if address.version in seen:
            why = f"{_FAMILY[address.version]} has {seen[address.version]}: one of each family"
            raise Fault(member, why)
        seen[address.version] = address
    if not pairs:
        raise Fault(item, "must hold an address at least", shown=False)
    return tuple(address for _, address in pairs)


def _read_pod_cidrs(item: Item, addresses: Iterable[IPAddress]) -> tuple[IPNetwork, ...]:
    pairs = _read_pairs(item, _read_pod_cidr)
    for place, (member, prefix) in enumerate(pairs):
        for _, other in pairs[:place]:
            if overlap(other, prefix):
                raise Fault(member, f"overlaps {other} of the same node")
        inner = next((a for a in addresses if a in prefix), None)
        if inner is not None:
            raise Fault(member, f"contains {inner}, an address of the same node")
    return tuple(prefix for _, prefix in pairs)


def _read_pairs(item: Item, read: Callable[[Item], T]) -> list[tuple[Item, T]]:
    return [(member, read(member)) for member in list_items(item)]
