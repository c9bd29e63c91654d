"""The host state that plans rest on: read from the kernel, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from cni_plugin.config import DEFAULT_BRIDGE
from cni_plugin.names import is_host_link_name
from daemon.config.schema import Settings
from daemon.model import Node
from daemon.prefix_set import Block, PrefixSet, block_of, host_block
from kernel.model import (
    RTPROT_PODWIRE,
    RTPROT_PODWIRE_PEERS,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    IPAddress,
    IPNetwork,
    Link,
    Route,
    Rule,
)
from kernel.netlink import links, routes
from kernel.netlink.codec import Message
from kernel.netlink.monitor import Event
from kernel.netlink.socket import Netlink
from kernel.paths import Packet, PacketPath, find_paths, read_rules
from kernel.read import read_links
from kernel.vxlan import find_vxlan

_OUR_PROTOCOLS = frozenset({RTPROT_PODWIRE, RTPROT_PODWIRE_PEERS})
_ALIAS = "podwire"
_NOWHERE = frozenset({"", "lo"})
_IPVS = "kube-ipvs0"
"""Where kube-proxy binds the addresses of Services (pkg/proxy/ipvs/proxier.go)."""
# struct rtmsg (linux/rtnetlink.h): the table and the protocol are its fifth and sixth byte.
_AT_TABLE, _AT_PROTOCOL = 4, 5


class Unplannable(Exception):
    """This node cannot be planned now; what it has in the kernel stays as it is.

    The text says why: the source does not have the node, its address is on no link, its MTU is
    impossible.
    """


@dataclass(frozen=True, slots=True)
class HostState:
    """The node's network at one time, in any order.

    links: all of them, bridge ports with their bridge's name, with aliases; podwire's VXLAN device
        with its tunnel.
    addresses: of all links.
    routes: unicast routes of the main table, also those that the kernel makes itself for connected
        networks; those that refuse packets (blackhole and its kin) have an empty link name. Routes
        to other nodes' pods (RTPROT_PODWIRE_PEERS) may be left out: they are ignored.
    rules: policy rules that are asked before the main table, without the kernel's own.
    """

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()


def read_host_state(nl: Netlink) -> HostState:
    """Read the node's network. Raises KernelError."""
    addresses = [links.parse_address(m) for m in nl.dump(links.list_addresses(0))]
    messages = list(_dump_routes(nl))
    # Links last: by then every link that had an address has the alias that says whose it is, since
    # the alias is set first. What belongs to a link that has gone meanwhile is left out.
    present = [_with_tunnel(nl, link) for link in read_links(nl)]
    names = {link.index: link.name for link in present}
    known = tuple(replace(a, link=names[i]) for i, a in addresses if i in names)
    rules = (rule for version in (4, 6) for rule in _first_rules(nl, version))
    return HostState(tuple(present), known, tuple(_read_routes(messages, names)), tuple(rules))


def service_addresses(host: HostState) -> frozenset[IPAddress]:
    """Those that this node has for IPVS alone, which takes packets to them where they are received
    (LOCAL_IN): each node has those of all Services."""
    bound = {a.address.ip for a in host.addresses if a.link == _IPVS}
    return frozenset(bound.difference(a.address.ip for a in host.addresses if a.link != _IPVS))


def _with_tunnel(nl: Netlink, link: Link) -> Link:
    is_own = link.kind == "vxlan" and (link.alias or "").startswith(_ALIAS)
    return (find_vxlan(nl, link.name) or link) if is_own else link


def _first_rules(nl: Netlink, version: int) -> Iterator[Rule]:
    for rule in read_rules(nl, version):
        plain = Rule(version, rule.priority, "lookup", rule.table)
        if rule == plain and rule.table == TABLE_MAIN:
            return
        if rule != plain or rule.table != TABLE_LOCAL:
            yield rule


def _dump_routes(nl: Netlink) -> Iterator[Message]:
    for version in (4, 6):
        for message in nl.dump(routes.list_routes(version)):
            # Filtered before decoding: there are thousands of routes to other nodes.
            if (
                message.body[_AT_PROTOCOL] != RTPROT_PODWIRE_PEERS
                and message.body[_AT_TABLE] == TABLE_MAIN
            ):
                yield message


def _read_routes(messages: Iterable[Message], names: Mapping[int, str]) -> Iterator[Route]:
    for message in messages:
        found = routes.parse_route(message)
        yield from (replace(route, link=names[i]) for i, route in found if i in names)
        other = None if found else routes.parse_named_route(message, {})
        if other and routes.is_unicast(message):
            # By a nexthop object, whose links are not in the route (net.ipv4.nexthop_compat_mode).
            yield replace(other, link="a nexthop object")
        elif other:
            yield other


Paths = Mapping[IPAddress, PacketPath]
"""How this node's packets reach the addresses of other nodes."""


class UnderlayPaths:
    """Paths to other nodes, asked of the kernel: it alone knows all tables, rules and next hops."""

    def __init__(self) -> None:
        self._known: dict[IPAddress, PacketPath] = {}
        self._sources: tuple[IPAddress, ...] = ()
        self._expired = False

    def expire(self) -> None:
        """Ask for all paths again at the next reading."""
        self._expired = True

    def read(self, nl: Netlink, nodes: Iterable[Node], me: str) -> Paths:
        """The paths to all nodes but this one; the same object while nothing changed.

        Raises KernelError.
        """
        by_name = {node.name: node for node in nodes}
        own = by_name.pop(me, None)
        sources = own.addresses if own else ()
        addresses = dict.fromkeys(a for node in by_name.values() for a in node.addresses)
        keep = {} if self._expired or sources != self._sources else self._known
        fresh = [address for address in addresses if address not in keep]
        of = {source.version: source for source in sources}
        found = find_paths(nl, [Packet(a, of.get(a.version)) for a in fresh])
        known = {a: path for a, path in keep.items() if a in addresses}
        known |= zip(fresh, found, strict=True)
        self._expired, self._sources = False, sources
        self._known = self._known if known == self._known else known
        return self._known


def affects_plan(event: Event, host: HostState) -> bool:
    """Whether an event may have changed what plans rest on.

    No plan rests on the node's ends of pods' pairs, which come and go all the time.
    """
    noun = event.noun
    if isinstance(noun, Route):
        return noun.protocol not in _OUR_PROTOCOLS
    if isinstance(noun, Rule):
        return True
    if isinstance(noun, Address):
        return not is_host_link_name(noun.link)
    if isinstance(noun, Link) and not is_host_link_name(noun.name):
        known = next((link for link in host.links if link.index == noun.index), None)
        return event.deleted or known is None or _comparable(known) != _comparable(noun)
    return False


def _comparable(link: Link) -> Link:
    """Without what an event lacks: the tunnel, and the name of a port's bridge."""
    return replace(link, port=None, vxlan=None)


@dataclass(frozen=True, slots=True)
class HostView:
    """What plans use of the host state; equal views give equal plans.

    underlay: this node's address that encapsulated packets have; uplink: the link that they leave
        by; mtu: its MTU in bytes.
    families: the address families that this node takes part in; no_ipv6: why IPv6 is none of them
        though pods should have it.
    local: every address of the node, and those that podwire is to give it.
    subnets: of the node's addresses, with the link of each; podwire's own left out.
    routes: of others, by destination: their links, empty for those that refuse packets (blackhole,
        unreachable, prohibit).
    on_link: the link of each address of other nodes that is on a link.
    tunnels: links that resolve no neighbours.
    in_use: those of the node's pod CIDRs that overlap a network, and that pods have addresses of.
    """

    me: Node
    underlay: IPAddress
    uplink: str
    mtu: int
    families: frozenset[int]
    local: frozenset[IPAddress]
    subnets: Mapping[Block, str]
    routes: Mapping[Block, str]
    in_use: frozenset[Block]
    tunnels: frozenset[str]
    on_link: Mapping[IPAddress, str] = field(compare=False, repr=False)
    _subnets: PrefixSet = field(compare=False, repr=False)
    _routes: PrefixSet = field(compare=False, repr=False)
    no_ipv6: str = ""

    def overlapping_network(self, block: Block, *, own: bool) -> str:
        """A network of the node that takes packets to a block; empty where none does.

        own: whether the block is this node's. A route to more than the block takes none of them:
        the route to the block is more specific.
        """
        subnet = self._subnets.overlapping(block)
        if subnet:
            return f"{subnet} on {self.subnets[subnet]}"
        for route in self._routes.inside(block):
            # In a node's own prefix it is usual: the routes to its pods are more specific.
            if self.routes[route] or not own:
                return f"{route} {_place(self.routes[route])}"
        return ""


def _place(link: str) -> str:
    return f"on {link}" if link else "through no link"


def view_host(
    settings: Settings,
    me: Node,
    host: HostState,
    paths: Paths,
    own_addresses: Iterable[IPAddress],
) -> HostView:
    """What matters of the host state. Raises Unplannable.

    own_addresses: those that podwire is to give this node itself.
    """
    own = _own_links(settings, host)
    underlay = _underlay(settings, me)
    uplink = _uplink(host, paths, own, underlay, settings.vxlan.device)
    subnets, routes = _foreign_networks(settings, me, host, own)
    view = HostView(
        me=me,
        underlay=underlay,
        uplink=uplink.name,
        mtu=uplink.mtu or 0,
        families=frozenset({a.version for a in me.addresses} | {p.version for p in me.pod_cidrs}),
        # Whether the VXLAN device exists yet must not matter: all peers would be planned again.
        local=frozenset(
            {a.address.ip for a in host.addresses if a.link != settings.vxlan.device}
            | {*own_addresses}
        ),
        subnets=subnets,
        routes=routes,
        in_use=frozenset(),
        tunnels=frozenset(link.name for link in host.links if link.arp is False),
        on_link={a: p.link for a, p in paths.items() if not p.via and p.link not in own | _NOWHERE},
        _subnets=PrefixSet(subnets),
        _routes=PrefixSet(routes),
    )
    overlapping = [b for b in map(block_of, me.pod_cidrs) if view.overlapping_network(b, own=True)]
    return replace(view, in_use=_in_use(overlapping, host, own)) if overlapping else view


def _own_links(settings: Settings, host: HostState) -> frozenset[str]:
    """podwire's links: pods' pairs, their bridges, the VXLAN device."""
    marked = {link.name for link in host.links if (link.alias or "").startswith(_ALIAS)}
    bridges = {link.port.bridge for link in host.links if link.port and link.name in marked}
    named = {settings.vxlan.device}
    if settings.conflist and settings.conflist.mode == "bridge":
        named.add(DEFAULT_BRIDGE)
    return frozenset(marked | bridges | named)


def _underlay(settings: Settings, me: Node) -> IPAddress:
    address = me.underlay(settings.underlay)
    if address is None:
        why = f"{me.name} has no IPv{settings.underlay} address, which `underlay` asks for"
        raise Unplannable(f"{why}; it has {', '.join(map(str, me.addresses))}")
    return address


def _uplink(
    host: HostState, paths: Paths, own: frozenset[str], underlay: IPAddress, device: str
) -> Link:
    """The link by which packets from the underlay address leave for other nodes.

    device: the VXLAN device, which would have to be made again for another one.
    """
    having = {a.link for a in host.addresses if a.address.ip == underlay}
    if not having:
        raise Unplannable(f"no link of this node has its address {underlay}")
    if having <= own:
        why = "which is the name of vxlan.device, or of a pod's link"
        raise Unplannable(f"{underlay} is this node's address on {min(having)}, {why}")
    found = Counter(p.link for a, p in paths.items() if a.version == underlay.version)
    present = next((k.vxlan.uplink for k in host.links if k.vxlan and k.name == device), "")

    def rank(name: str) -> tuple[object, ...]:
        return name not in own, name in having, name == present, found[name], name

    # The link of the address where any node is reached by it, else the device's, else the one that
    # most use.
    names = sorted(found.keys() - _NOWHERE, key=rank)
    name = names[-1] if names else _likely_link(host, having, underlay.version)
    if name in own:
        raise Unplannable(f"packets from {underlay} leave by {name}, which is podwire's own")
    link = next((link for link in host.links if link.name == name), None)
    if link is None:
        raise Unplannable(f"no link leads from this node's address {underlay} to other nodes")
    return link


def _likely_link(host: HostState, having: Set[str], version: int) -> str:
    """The link of the address, or of the default route: no path leads to another node yet."""
    routes = [r for r in host.routes if r.dst.version == version and not r.dst.prefixlen]
    usable = sorted((r.priority, r.link) for r in routes if r.link not in _NOWHERE)
    return min(having - _NOWHERE, default=usable[0][1] if usable else "")


def _foreign_networks(
    settings: Settings, me: Node, host: HostState, own: frozenset[str]
) -> tuple[dict[Block, str], dict[Block, str]]:
    """The subnets of addresses and the routes that are not podwire's, with the link of each.

    What `allowOverlap` names is left out, and what `migrateFrom` left for pods of this node.
    """
    allowed = PrefixSet(map(block_of, settings.allow_overlap))
    left = PrefixSet(map(block_of, me.pod_cidrs if settings.migrate_from else ()))

    def relevant(found: Iterable[tuple[IPNetwork, str]]) -> dict[Block, str]:
        # Of several links the last one: a link comes after none.
        ordered = sorted((name, block_of(n)) for n, name in found if name not in own)
        return {b: name for name, b in ordered if not is_allowed(b)}

    def is_allowed(block: Block) -> bool:
        # Of single addresses none is a new pod's: IPAM gives none away that is reserved.
        within = allowed if block.first < block.last else left
        return any(True for prefixes in (allowed, within) for _ in prefixes.containing(block))

    routes = (r for r in host.routes if r.protocol not in _OUR_PROTOCOLS)
    return (
        relevant((a.address.network, a.link) for a in host.addresses),
        relevant((r.dst, r.link) for r in routes),
    )


def _in_use(blocks: Iterable[Block], host: HostState, own: frozenset[str]) -> frozenset[Block]:
    """Those that podwire's links have addresses of, or its routes to pods lead to."""
    used = [host_block(a.address.ip) for a in host.addresses if a.link in own]
    used += [block_of(r.dst) for r in host.routes if r.protocol == RTPROT_PODWIRE]
    pods = PrefixSet(used)
    return frozenset(block for block in blocks if pods.inside(block))
