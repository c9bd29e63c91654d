"""Snapshots and facts become the desired state of this node; what did not change is kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.config.schema import Settings
from daemon.model import Node, Snapshot
from daemon.prefix_set import Span, host_span, merge, span_of
from daemon.routing.adoption import find_incumbents
from daemon.routing.backends import base as backends
from daemon.routing.backends.base import Peer, Way
from daemon.routing.conflicts import Claims
from daemon.routing.desired import Desired, Refusal, Unplannable
from daemon.routing.facts import Facts
from daemon.routing.host_state import Ground, survey
from daemon.routing.underlays import Underlays
from kernel.model import IPAddress, IPNetwork
from kernel.routes import Entry


@dataclass(slots=True)
class Offer:
    """What a node could have; collisions: of what it has in use, with networks of this node."""

    ways: list[Way] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    collisions: dict[Span, Refusal] = field(default_factory=dict)


class Planner:
    """Plans one node, again and again; settings stay the same for its life."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._nodes: dict[str, Node] = {}
        self._ground: Ground | None = None
        self._facts: Facts | None = None
        self._underlays = Underlays()
        self._addresses = Claims(settings.node)
        self._prefixes = Claims(settings.node)
        self._peers: dict[str, tuple[Entry, ...]] = {}
        self._own: tuple[Entry, ...] = ()
        self._refused: dict[str, tuple[Refusal, ...]] = {}
        self._tolerated: dict[str, tuple[Refusal, ...]] = {}
        self._held: tuple[Span, ...] = ()
        self._merged_of: tuple[tuple[IPNetwork, ...], tuple[Span, ...]] = ((), ())
        self._merged: tuple[Span, ...] = ()

    def plan(self, snapshot: Snapshot, facts: Facts, found: Iterable[Entry] = ()) -> Desired:
        """The desired state. Raises Unplannable, and plans on from the last success then.

        found: what an earlier daemon left in the kernel. Until a plan succeeds it says which node
        has a prefix already and keeps it against others; later the plan before says so. The same
        Facts object as before spares another look at it.
        """
        nodes = {node.name: node for node in snapshot.nodes}
        me = nodes.get(self._settings.node)
        if me is None:
            raise Unplannable(f"the source has no node {self._settings.node}, which is this one")
        ground = self._survey(me, facts)
        mtu = backends.plan_mtu(self._settings, ground)
        if self._ground is None:
            self._adopt(found, snapshot.nodes)
        changed = self._changes(nodes, ground)
        self._nodes, self._ground, self._facts = nodes, ground, facts
        self._replan(changed, ground)
        return self._desired(snapshot, ground, mtu)

    def _survey(self, me: Node, facts: Facts) -> Ground:
        # A node may have thousands of routes of its own.
        if self._ground is not None and facts is self._facts and me == self._ground.me:
            return self._ground
        return survey(self._settings, me, facts)

    def _adopt(self, found: Iterable[Entry], nodes: Iterable[Node]) -> None:
        prefixes, addresses = find_incumbents(found, nodes)
        self._prefixes = Claims(self._settings.node, prefixes)
        self._addresses = Claims(self._settings.node, addresses)

    def _changes(self, nodes: Mapping[str, Node], ground: Ground) -> set[str]:
        """The names of nodes that must be planned anew."""
        old = self._nodes
        if ground != self._ground:
            return {*old, *nodes}
        # Sources keep objects of unchanged nodes: telling them from others costs nothing.
        changed = {name for name, node in nodes.items() if old.get(name) is not node}
        changed = {name for name in changed if old.get(name) != nodes[name]}
        return changed | (old.keys() - nodes.keys())

    def _replan(self, changed: set[str], ground: Ground) -> None:
        crossed: set[str] = set()
        for name in changed:
            node = self._nodes.get(name)
            crossed |= self._underlays.put(name, node)
            self._addresses.put(name, map(host_span, node.addresses) if node else ())
        changed = changed | crossed | self._addresses.settle()
        offers = {name: self._offer(name, ground) for name in changed}
        for name, offer in offers.items():
            self._prefixes.put(name, (way.span for way in offer.ways))
        for name in self._prefixes.settle() - changed:
            offers[name] = self._offer(name, ground)
        for name, offer in offers.items():
            self._grant(name, offer, ground)
        # Grants take away claims that lost already: nobody wins by that.
        self._prefixes.settle()
        if offers:
            self._held = self._prefixes.held()

    def _offer(self, name: str, ground: Ground) -> Offer:
        """What a node could have if nobody else claimed it; nothing for one that has left."""
        offer = Offer()
        node = self._nodes.get(name)
        for way in self._ways(node, ground) if node else ():
            if isinstance(way, Refusal):
                offer.refused.append(way)
                continue
            inner = self._inhabitant(name, way.span)
            if inner:
                offer.refused.append(Refusal(name, way.prefix, inner))
                continue
            rival = self._collision(name, way.span, ground)
            if rival and not self._is_in_use(name, way.span, ground):
                offer.refused.append(_collision(name, way.prefix, rival))
                continue
            offer.ways.append(way)
            if rival:
                offer.collisions[way.span] = _collision(name, way.prefix, rival)
        return offer

    def _inhabitant(self, name: str, span: Span) -> str:
        """The node that could not be reached if a peer got a prefix, in words; else empty."""
        me = self._settings.node
        if name == me:
            return ""
        in_use = self._prefixes.holds(name, span)
        for other, address in self._underlays.within(span):
            # Who comes with an address in what a peer has already is the one that is refused.
            if other in (name, me) or not in_use:
                whose = "its own address" if other == name else f"an address of {other}"
                return f"contains {address.address}, {whose}: the way there would lead into itself"
        return ""

    def _landlord(self, name: str, address: IPAddress) -> str:
        """The prefix of another node that an address is in, in words; else empty."""
        for other, span in self._underlays.around(host_span(address)):
            in_use = other == self._settings.node or self._prefixes.holds(other, span)
            if other != name and in_use:
                return f"its address {address} is in {span} of {other}"
        return ""

    def _collision(self, name: str, span: Span, ground: Ground) -> str:
        rival = ground.collision(span)
        # In a node's own prefix it is usual: the routes to its pods are narrower.
        return rival or ("" if name == self._settings.node else ground.hole(span))

    def _ways(self, node: Node, ground: Ground) -> Iterable[Way | Refusal]:
        if node.name == self._settings.node:
            return (Way(prefix, span_of(prefix), ()) for prefix in node.pod_cidrs)
        return Peer(self._settings, ground, node, self._taken(node, ground)).ways()

    def _taken(self, node: Node, ground: Ground) -> dict[IPAddress, str]:
        """Those of a peer's addresses that are somebody else's, and why."""
        taken = {}
        for address in node.addresses:
            loss = self._addresses.loss(node.name, host_span(address))
            if loss:
                taken[address] = f"its address {address} is that of {loss.node} too"
            elif address in ground.local:
                taken[address] = f"its address {address} is on this node"
            elif landlord := self._landlord(node.name, address):
                taken[address] = landlord
        return taken

    def _is_in_use(self, name: str, span: Span, ground: Ground) -> bool:
        if name == self._settings.node:
            return span in ground.in_use
        return self._prefixes.holds(name, span)

    def _grant(self, name: str, offer: Offer, ground: Ground) -> None:
        """Note what a node gets of its offer."""
        won = [way for way in offer.ways if self._prefixes.holds(name, way.span)]
        lost = [way for way in offer.ways if way not in won] if len(won) < len(offer.ways) else []
        if offer.collisions:
            # What collides with a network stays only while it is in use, which has ended now.
            kept = (w.span for w in offer.ways if w in won or w.span not in offer.collisions)
            self._prefixes.put(name, kept)
        refused = [*offer.refused, *(self._refusal(name, way, offer) for way in lost)]
        tolerated = [offer.collisions[w.span] for w in won if w.span in offer.collisions]
        # In an order that does not tell how it came about: restarts must not change it.
        _note(self._refused, name, tuple(sorted(refused, key=lambda r: span_of(r.prefix))))
        _note(self._tolerated, name, tuple(tolerated))
        node = self._nodes.get(name)
        if node is None:
            self._peers.pop(name, None)
        elif name != self._settings.node:
            entries = _entries(won)
            if self._peers.get(name) != entries:
                self._peers[name] = entries

    def _refusal(self, name: str, way: Way, offer: Offer) -> Refusal:
        collision = offer.collisions.get(way.span)
        if collision:
            return collision
        rival = self._prefixes.loss(name, way.span)
        why = f"overlaps {rival.span} of {rival.node}, which keeps it" if rival else "is taken"
        return Refusal(name, way.prefix, why)

    def _desired(self, snapshot: Snapshot, ground: Ground, mtu: int) -> Desired:
        me, device = ground.me, backends.plan_device(self._settings, ground, mtu)
        pod_cidrs = tuple(p for p in me.pod_cidrs if self._prefixes.holds(me.name, span_of(p)))
        own = tuple(filter(None, (backends.plan_own_route(self._settings, p) for p in pod_cidrs)))
        self._own = self._own if own == self._own else own
        return Desired(
            me=me,
            pod_cidrs=pod_cidrs,
            underlay=ground.underlay,
            uplink=ground.uplink,
            device=device,
            device_addresses=tuple(
                backends.plan_device_address(device, prefix) for prefix in pod_cidrs if device
            ),
            own=self._own,
            overhead=backends.plan_overhead(self._settings, ground),
            nodes=self._nodes,
            peers=dict(self._peers),
            refused=_flatten(self._refused),
            tolerated=_flatten(self._tolerated),
            pod_mtu=mtu,
            sysctls=tuple(backends.plan_sysctls(ground, device)),
            cluster=self._merge(snapshot.cluster_cidrs),
        )

    def _merge(self, cluster_cidrs: tuple[IPNetwork, ...]) -> tuple[Span, ...]:
        key = (cluster_cidrs, self._held)
        if key != self._merged_of:
            self._merged = merge((*self._held, *map(span_of, cluster_cidrs)))
            self._merged_of = key
        return self._merged


def _entries(ways: Sequence[Way]) -> tuple[Entry, ...]:
    fdb = next((way.fdb for way in ways if way.fdb), None)
    entries = [entry for way in ways for entry in way.entries]
    # All IPv6 prefixes of a peer have one neighbour.
    unique = dict.fromkeys(entries) if len(ways) > 1 else entries
    return (fdb, *unique) if fdb else tuple(unique)


def _collision(name: str, prefix: IPNetwork, rival: str) -> Refusal:
    return Refusal(name, prefix, f"overlaps {rival} of this node")


def _note(notes: dict[str, tuple[Refusal, ...]], name: str, found: tuple[Refusal, ...]) -> None:
    notes.pop(name, None)
    if found:
        notes[name] = found


def _flatten(notes: Mapping[str, tuple[Refusal, ...]]) -> tuple[Refusal, ...]:
    return tuple(refusal for name in sorted(notes) for refusal in notes[name])
