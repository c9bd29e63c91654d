"""Clusters, nodes and host states for tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from daemon.config.load import parse_settings
from daemon.config.schema import Settings
from daemon.model import Desired, Node, Snapshot
from daemon.routing.host_state import HostState
from daemon.routing.planner import Planner
from kernel.model import Address, Entry, IPAddress, Link, Route
from kernel.paths import PacketPath

ME = "node-1"
UPLINK = Link("eth0", kind="", mtu=1500, index=2)


def settings(text: str = "", node: str = ME) -> Settings:
    """Settings of this node; text: further lines of the file."""
    data = f"node: {node}\nsource: {{static: /etc/podwire/nodes.yaml}}\n{text}\n"
    return parse_settings(data.encode(), "podwired.yaml", {}, "host")


def node(name: str | int, addresses: str = "", cidrs: str = "") -> Node:
    """A node; by number alone it is 192.0.2.N with 10.244.N.0/24."""
    number = name if isinstance(name, int) else 0
    return Node(
        f"node-{name}" if number else str(name),
        tuple(ip_address(a) for a in (addresses or f"192.0.2.{number}").split()),
        tuple(ip_network(p) for p in (cidrs or f"10.244.{number}.0/24").split()),
    )


def cluster(*nodes: Node, cidrs: str = "") -> Snapshot:
    """The snapshot of these nodes."""
    return Snapshot(nodes, tuple(ip_network(p) for p in cidrs.split()))


def host_state(*addresses: str, **changes: Any) -> HostState:
    """A node with these addresses on eth0 and the routes that follow, behind a router .254.

    links, routes, more: further ones; more: pairs of link and address. uplink_mtu: in bytes.
    """
    own = addresses or ("192.0.2.1/24",)
    pairs = [("eth0", a) for a in own] + list(changes.get("more", ()))
    on_links = tuple(Address(link, ip_interface(a)) for link, a in pairs)
    connected = tuple(Route(a.address.network, a.link, protocol=2) for a in on_links)
    default = Route(ip_network("0.0.0.0/0"), "eth0", via=ip_address("192.0.2.254"))
    uplink = replace(UPLINK, mtu=changes.get("uplink_mtu", UPLINK.mtu))
    links = (Link("lo", kind="", mtu=65536, index=1), uplink, *changes.get("links", ()))
    return HostState(links, on_links, (*connected, default, *changes.get("routes", ())))


def paths(host: HostState, snapshot: Snapshot) -> dict[IPAddress, PacketPath]:
    """What a kernel with these routes answers for the addresses of the other nodes."""
    found = [a for n in snapshot.nodes if n.name != ME for a in n.addresses]
    return {address: path_to(address, host) for address in found}


def path_to(address: IPAddress, host: HostState) -> PacketPath:
    """The path by the longest prefix and the lowest metric."""
    matching = [r for r in host.routes if r.dst.version == address.version and address in r.dst]
    best = min(matching, key=lambda r: (-r.dst.prefixlen, r.priority), default=None)
    return PacketPath(best.link, best.via) if best and best.link else PacketPath(errno=101)


def planned(
    planner: Planner, snapshot: Snapshot, host: HostState, found: Iterable[Entry] = ()
) -> Desired:
    """The next plan of a planner whose kernel has the host's routes."""
    return planner.plan(snapshot, host, paths(host, snapshot), found)


def route(dst: str, link: str, via: str = "", **changes: Any) -> Route:
    """A route that others made."""
    return Route(ip_network(dst), link, via=ip_address(via) if via else None, **changes)
