"""What planning needs to know of the node itself, read from its kernel elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from kernel.model import Address, Link, Route


@dataclass(frozen=True, slots=True)
class Facts:
    """The node at one time, in any order.

    links: all of them, bridge ports with their bridge's name, with aliases.
    addresses: of all links.
    routes: unicast routes of the main table, the kernel's own for connected networks too, whoever
        made them; those that let nothing through (blackhole and its kin) have no link's name. Those
        to other nodes' pods (RTPROT_PODWIRE_PEERS) may be left out; they count for nothing.
    """

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
