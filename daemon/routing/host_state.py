"""The node as planning sees it: its way out, its own networks, what is on-link."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from daemon.config.schema import Settings
from daemon.model import Node
from daemon.prefix_set import Span, SpanSet, host_span, span_of
from daemon.routing.desired import Unplannable
from daemon.routing.facts import Facts
from kernel.model import (
    RTPROT_PODWIRE,
    RTPROT_PODWIRE_PEERS,
    IPAddress,
    IPNetwork,
    Link,
    Route,
)

_OURS = frozenset({RTPROT_PODWIRE, RTPROT_PODWIRE_PEERS})
_ALIAS = "podwire"
# The bridge of a conflist that names none (cni_plugin.config.NetConf).
_BRIDGE = "cni0"
# Routes up to this length are default routes, whole or by halves (OpenVPN's 0.0.0.0/1, and
# 2000::/3: all that is assigned of IPv6).
_DEFAULT_MAX = {4: 1, 6: 3}


@dataclass(frozen=True, slots=True)
class Ground:
    """What plans of this node rest on; equal ones give equal plans.

    underlay: this node's address that encapsulated packets have; uplink: its link; mtu: its MTU.
    families: the address families that this node takes part in.
    local: every address of the node, and those that its VXLAN device is to have.
    networks: of the node, with the link of each; pods' own and default routes left out.
    holes: where its routes through no link lead: black holes, routes that refuse.
    on_link: the link for each destination; empty where a router is next.
    in_use: those of the node's pod CIDRs that collide, and that pods have addresses of already.
    """

    me: Node
    underlay: IPAddress
    uplink: str
    mtu: int
    families: frozenset[int]
    local: frozenset[IPAddress]
    networks: Mapping[Span, str]
    holes: frozenset[Span]
    on_link: Mapping[Span, str]
    in_use: frozenset[Span]
    _networks: SpanSet = field(compare=False, repr=False)
    _holes: SpanSet = field(compare=False, repr=False)
    _ways: SpanSet = field(compare=False, repr=False)

    def collision(self, span: Span) -> str:
        """A network of the node that shares addresses with the span, in words; empty for none."""
        rival = self._networks.rival(span)
        return f"{rival} on {self.networks[rival]}" if rival else ""

    def hole(self, span: Span) -> str:
        """A part of the span, or all of it, that a route of the node lets nothing reach."""
        # One around it is in nobody's way: the narrower route wins.
        inside = self._holes.within(span)
        return f"{inside[0]} through no link" if inside else ""

    def link_to(self, address: IPAddress) -> str:
        """The link that the address is on; empty where it is behind a router, or nowhere."""
        way = next(self._ways.around(host_span(address)), None)
        return self.on_link[way] if way else ""


def survey(settings: Settings, me: Node, facts: Facts) -> Ground:
    """What matters of the facts. Raises Unplannable."""
    own = _own_links(settings, facts)
    underlay = _underlay(settings, me)
    uplink = _uplink(facts, own, underlay)
    networks = dict(_networks(settings, facts, own))
    network_set = SpanSet(networks)
    colliding = [s for s in map(span_of, me.pod_cidrs) if network_set.rival(s)]
    holes = frozenset(_holes(settings, facts))
    ways = _ways(facts, own)
    return Ground(
        me=me,
        underlay=underlay,
        uplink=uplink.name,
        mtu=uplink.mtu or 0,
        families=frozenset(
            {a.version for a in me.addresses} | {p.version for p in me.pod_cidrs},
        ),
        local=_local(settings, me, facts),
        networks=networks,
        holes=holes,
        on_link=ways,
        in_use=_in_use(colliding, facts, own) if colliding else frozenset(),
        _networks=network_set,
        _holes=SpanSet(holes),
        _ways=SpanSet(ways),
    )


def _own_links(settings: Settings, facts: Facts) -> frozenset[str]:
    """podwire's links: pods' pairs, their bridges, the VXLAN device."""
    marked = {link.name for link in facts.links if (link.alias or "").startswith(_ALIAS)}
    bridges = {link.port.bridge for link in facts.links if link.port and link.name in marked}
    named = {settings.vxlan.device}
    if settings.conflist and settings.conflist.mode == "bridge":
        named.add(_BRIDGE)
    return frozenset(marked | bridges | named)


def _underlay(settings: Settings, me: Node) -> IPAddress:
    address = me.address(settings.underlay) if settings.underlay else me.addresses[0]
    if address is None:
        why = f"{me.name} has no IPv{settings.underlay} address, which `underlay` asks for"
        raise Unplannable(f"{why}; it has {', '.join(map(str, me.addresses))}")
    return address


def _uplink(facts: Facts, own: frozenset[str], underlay: IPAddress) -> Link:
    there = {a.link for a in facts.addresses if a.address.ip == underlay}
    names = there - own
    if there and not names:
        why = "which vxlan.device, or a pod, has for its own"
        raise Unplannable(f"{underlay} is this node's address on {min(there)}, {why}")
    if not names:
        raise Unplannable(f"no link of this node has its address {underlay}")
    name = min(names - {"lo"}, default="")
    if not name:
        # A routed host: the address is announced, packets leave by the default route's link.
        name = _default_link(facts, underlay.version)
    if name in own:
        raise Unplannable(f"packets from {underlay} leave by {name}, which is podwire's own")
    link = next((link for link in facts.links if link.name == name), None)
    if link is None:
        raise Unplannable(f"no link leads from this node's address {underlay} to other nodes")
    return link


def _default_link(facts: Facts, version: int) -> str:
    routes = [
        r for r in facts.routes if r.link and r.dst.version == version and not r.dst.prefixlen
    ]
    return min(routes, key=lambda r: r.priority).link if routes else ""


def _local(settings: Settings, me: Node, facts: Facts) -> frozenset[IPAddress]:
    # Whether the device is there yet must not matter: all peers would be planned again.
    device = settings.vxlan.device if settings.backend in ("vxlan", "hybrid") else None
    there = {a.address.ip for a in facts.addresses if a.link != device}
    has_own = settings.backend != "none"
    return frozenset(there | {p.network_address for p in me.pod_cidrs if has_own})


def _networks(settings: Settings, facts: Facts, own: frozenset[str]) -> Iterator[tuple[Span, str]]:
    allowed = _allowed(settings)
    found: list[tuple[IPNetwork, str]] = [(a.address.network, a.link) for a in facts.addresses]
    found += [(r.dst, r.link) for r in facts.routes if r.link and r.protocol not in _OURS]
    for network, link in sorted(found, key=lambda pair: pair[1]):
        span = span_of(network)
        is_default = network.prefixlen <= _DEFAULT_MAX[network.version]
        if link not in own and not is_default and next(allowed.around(span), None) is None:
            yield span, link


def _holes(settings: Settings, facts: Facts) -> Iterator[Span]:
    allowed = _allowed(settings)
    for route in facts.routes:
        span = span_of(route.dst)
        if not route.link and next(allowed.around(span), None) is None:
            yield span


def _allowed(settings: Settings) -> SpanSet:
    return SpanSet(map(span_of, settings.allow_overlap))


def _ways(facts: Facts, own: frozenset[str]) -> dict[Span, str]:
    """The link of on-link destinations, "" for those behind a router; the lowest metric counts."""
    usable = [r for r in facts.routes if r.link not in own and r.protocol not in _OURS]
    best: dict[Span, Route] = {}
    for route in sorted(usable, key=lambda r: (r.priority, r.link)):
        best.setdefault(span_of(route.dst), route)
    return {span: route.link if _is_direct(route) else "" for span, route in best.items()}


def _is_direct(route: Route) -> bool:
    return route.via is None and route.link not in ("", "lo") and route.dst.prefixlen > 0


def _in_use(spans: Iterable[Span], facts: Facts, own: frozenset[str]) -> frozenset[Span]:
    """Those that podwire's links have addresses of, or its routes to pods lead to."""
    used = [host_span(a.address.ip) for a in facts.addresses if a.link in own]
    used += [span_of(r.dst) for r in facts.routes if r.protocol == RTPROT_PODWIRE]
    pods = SpanSet(used)
    return frozenset(span for span in spans if pods.within(span))
