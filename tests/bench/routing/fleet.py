"""The list of nodes, long or short, and what it makes of one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

from daemon.routing.backends.vxlan import vtep_mac
from kernel.model import RTPROT_PODWIRE_PEERS, Entry, FdbEntry, Neighbour, Route

DEVICE = "podwire-vxlan"
_ADDRESSES, _PREFIXES = IPv4Address("198.18.0.1"), IPv4Address("10.0.0.0")  # RFC 2544; private


@dataclass(frozen=True, slots=True)
class Listed:
    """A node as nodes.yaml has it."""

    name: str
    address: str
    prefix: IPv4Network

    @property
    def entries(self) -> tuple[FdbEntry, Neighbour, Route]:
        """What another node's kernel needs to reach its pods."""
        address, first = ip_address(self.address), self.prefix.network_address
        mac = vtep_mac(address)
        return (
            FdbEntry(DEVICE, mac, address),
            Neighbour(DEVICE, first, mac),
            Route(self.prefix, DEVICE, via=first, protocol=RTPROT_PODWIRE_PEERS, onlink=True),
        )


def list_node(number: int, address: str = "") -> Listed:
    """The node of a number from 0 to 65,535; peers that are not there have made-up addresses."""
    prefix = IPv4Network((int(_PREFIXES) + (number << 8), 24))
    return Listed(f"node-{number}", address or str(_ADDRESSES + number), prefix)


def list_peers(count: int, first: int = 1) -> list[Listed]:
    """So many nodes that are only listed."""
    return [list_node(number) for number in range(first, first + count)]


def entries_of(nodes: Iterable[Listed]) -> list[Entry]:
    """All that leads to some nodes, in the order in which the kernel is to get it."""
    layers = list(zip(*(node.entries for node in nodes), strict=True))
    return [entry for layer in layers for entry in layer]


def write_listing(path: Path, nodes: Iterable[Listed]) -> None:
    """Put a new list in the place of the old one, at once."""
    text = "".join(
        f"- name: {n.name}\n  addresses: [{n.address}]\n  podCIDRs: [{n.prefix}]\n" for n in nodes
    )
    fresh = path.with_suffix(".new")
    fresh.write_text(f"nodes:\n{text}")
    fresh.rename(path)
