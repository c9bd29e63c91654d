"""Cluster and host state become the desired state of this node; what did not change is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from daemon.config.schema import Settings
from daemon.model import Desired, Node, Refusal, Snapshot
from daemon.prefix_set import Block, block_of, host_block, merge
from daemon.routing.backends import backend_of
from daemon.routing.backends.base import (
    PeerPath,
    RemoteNode,
    explain_no_ipv6,
    plan_device_addresses,
    plan_mtu,
)
from daemon.routing.backends.vxlan import vtep_mac
from daemon.routing.conflicts import Adopted, Ownership
from daemon.routing.host_state import (
    HostState,
    HostView,
    Paths,
    Unplannable,
    service_addresses,
    view_host,
)
from daemon.routing.sysctls import plan_sysctls
from kernel.model import Entry, IPAddress, IPNetwork, Neighbour, Route


@dataclass(slots=True)
class _Offer:
    """What a node could have if no other node claimed it.

    overlaps: of prefixes that it owns already, with networks of this node.
    """

    paths: list[PeerPath] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    overlaps: dict[Block, Refusal] = field(default_factory=dict)


class Planner:
    """Plans one node again and again, with the same settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._me = settings, settings.node
        self._backend = backend_of(settings)
        self._nodes: dict[str, Node] = {}
        self._host: HostState | None = None
        self._underlay: Paths = {}
        self._view: HostView | None = None
        self._ownership = Ownership(settings.node)
        self._peers: dict[str, tuple[Entry, ...]] = {}
        self._pathless: set[str] = set()
        self._refused: dict[str, tuple[Refusal, ...]] = {}
        self._tolerated: dict[str, tuple[Refusal, ...]] = {}
        self._merged_of: object = None
        self._merged: tuple[Block, ...] = ()

    def plan(
        self,
        snapshot: Snapshot,
        host: HostState,
        paths: Paths = MappingProxyType({}),
        found: Iterable[Entry] = (),
    ) -> Desired:
        """The desired state. Raises Unplannable, and plans on from the last success then.

        paths: to the addresses of the other nodes. found: what an earlier daemon left in the
        kernel: until a plan succeeds, it says which node owns a prefix. The same objects
        as before are not evaluated again.
        """
        nodes = {node.name: node for node in snapshot.nodes}
        me = nodes.get(self._me)
        if me is None:
            raise Unplannable(f"the source has no node {self._me}, which is this one")
        view = self._view_host(me, host, paths)
        mtu = self._plan_mtu(view)
        if self._view is None:
            self._ownership = Ownership(self._me, _adopt(found, snapshot.nodes))
        changed = self._changes(nodes, view)
        self._nodes, self._view, self._host, self._underlay = nodes, view, host, paths
        self._replan(changed, view)
        return self._desired(snapshot, view, mtu)

    def allow_overlap(self, prefixes: tuple[IPNetwork, ...]) -> None:
        """Replace the networks of this node that pod CIDRs may overlap, from the next plan on."""
        self._settings = self._settings.model_copy(update={"allow_overlap": prefixes})
        self._host = None

    def _view_host(self, me: Node, host: HostState, paths: Paths) -> HostView:
        # A node may have thousands of routes of its own.
        same = host is self._host and paths is self._underlay
        if self._view is not None and same and me == self._view.me:
            return self._view
        own = self._backend.source_addresses(me.pod_cidrs)
        view = view_host(self._settings, me, host, paths, own)
        why = explain_no_ipv6(view, self._plan_mtu(view))
        return replace(view, families=view.families - {6}, no_ipv6=why) if why else view

    def _plan_mtu(self, view: HostView) -> int:
        return plan_mtu(self._settings, view, self._backend.overhead(view))

    def _changes(self, nodes: Mapping[str, Node], view: HostView) -> set[str]:
        """The names of nodes that must be planned again."""
        old, before = self._nodes, self._view
        if before is None or view != before:
            return {*old, *nodes}
        # Sources keep the objects of unchanged nodes, so most are passed over by identity.
        changed = {name for name, node in nodes.items() if old.get(name) is not node}
        changed = {name for name in changed if old.get(name) != nodes[name]}
        if view is not before:
            moved = {a for a, _link in view.on_link.items() ^ before.on_link.items()}
            changed |= {n.name for n in nodes.values() if not moved.isdisjoint(n.addresses)}
        return changed | (old.keys() - nodes.keys())

    def _replan(self, changed: set[str], view: HostView) -> None:
        affected = self._ownership.update({name: self._nodes.get(name) for name in changed})
        offers = {name: self._offer(name, view) for name in affected}
        for name, offer in offers.items():
            self._ownership.prefixes.put(name, (path.block for path in offer.paths))
        for name in self._ownership.prefixes.settle() - affected:
            offers[name] = self._offer(name, view)
        for name, offer in offers.items():
            self._grant(name, offer)

    def _offer(self, name: str, view: HostView) -> _Offer:
        """What a node could have; nothing for one that has left."""
        offer = _Offer()
        node = self._nodes.get(name)
        for path in self._paths(node, view) if node else ():
            if isinstance(path, Refusal):
                offer.refused.append(path)
                continue
            contained = self._ownership.contained_address(name, path.block)
            if contained:
                offer.refused.append(Refusal(name, path.prefix, *contained))
                continue
            overlap = self._overlap(name, path, view)
            if overlap and not self._is_in_use(name, path.block, view):
                offer.refused.append(overlap)
                continue
            offer.paths.append(path)
            if overlap:
                offer.overlaps[path.block] = overlap
        return offer

    def _paths(self, node: Node, view: HostView) -> Iterator[PeerPath | Refusal]:
        if node.name == self._me:
            return (_own_path(node, prefix, view) for prefix in node.pod_cidrs)
        taken = self._ownership.address_conflicts(node, view.local)
        return self._backend.plan_peer(RemoteNode(node, view, taken))

    def _overlap(self, name: str, path: PeerPath, view: HostView) -> Refusal | None:
        """The network of this node that a prefix overlaps, as a refusal."""
        network = view.overlapping_network(path.block, own=name == self._me)
        why = f"overlaps {network} of this node, which `allowOverlap` does not name"
        return Refusal(name, path.prefix, why) if network else None

    def _is_in_use(self, name: str, block: Block, view: HostView) -> bool:
        return block in view.in_use if name == self._me else self._owns(name, block)

    def _owns(self, name: str, block: Block) -> bool:
        return self._ownership.prefixes.owns(name, block)

    def _grant(self, name: str, offer: _Offer) -> None:
        """Note what a node gets of its offer."""
        won = [path for path in offer.paths if self._owns(name, path.block)]
        lost = [path for path in offer.paths if path not in won]
        conflict = self._ownership.prefix_conflict
        refused = offer.refused + [
            Refusal(name, path.prefix, *conflict(name, path.block)) for path in lost
        ]
        tolerated = [offer.overlaps[p.block] for p in won if p.block in offer.overlaps]
        # In an order that does not depend on the order of events: restarts must not change it.
        _note(self._refused, name, tuple(sorted(refused, key=lambda r: block_of(r.prefix))))
        _note(self._tolerated, name, tuple(tolerated))
        self._pathless.discard(name)
        if name not in self._nodes:
            self._peers.pop(name, None)
        elif name != self._me:
            if not won:
                self._pathless.add(name)
            entries = _entries(won)
            if self._peers.get(name) != entries:
                self._peers[name] = entries

    def _desired(self, snapshot: Snapshot, view: HostView, mtu: int) -> Desired:
        me, backend = view.me, self._backend
        device = backend.plan_device(view, mtu)
        pod_cidrs = tuple(p for p in me.pod_cidrs if self._owns(me.name, block_of(p)))
        sources = backend.source_addresses(pod_cidrs)
        return Desired(
            me=me,
            pod_cidrs=pod_cidrs,
            underlay=view.underlay,
            uplink=view.uplink,
            device=device,
            device_addresses=tuple(plan_device_addresses(device, sources)) if device else (),
            own_routes=tuple(backend.plan_own_routes(pod_cidrs)),
            overhead=backend.overhead(view),
            nodes=self._nodes,
            peers=dict(self._peers),
            pathless=frozenset(self._pathless),
            refused=_flatten(self._refused),
            tolerated=_flatten(self._tolerated),
            pod_mtu=mtu,
            sysctls=tuple(plan_sysctls(view, device.name if device else "")),
            cluster=self._merge(snapshot.cluster_cidrs),
            services=service_addresses(self._host) if self._host else frozenset(),
        )

    def _merge(self, cluster_cidrs: tuple[IPNetwork, ...]) -> tuple[Block, ...]:
        owned = self._ownership.prefixes.owned()  # the same object while nothing changed
        if (owned, cluster_cidrs) != self._merged_of:
            self._merged = merge((*owned, *map(block_of, cluster_cidrs)))
            self._merged_of = owned, cluster_cidrs
        return self._merged


def _adopt(entries: Iterable[Entry], nodes: Iterable[Node]) -> Adopted:
    """What nodes own when the daemon starts: the entries of the one before lead to them.

    Without it a restart could give a prefix that two nodes claim to the other of them.
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


def _own_path(me: Node, prefix: IPNetwork, view: HostView) -> PeerPath | Refusal:
    if prefix.version == 6 and view.no_ipv6:
        return Refusal(me.name, prefix, view.no_ipv6)
    return PeerPath(prefix, block_of(prefix), ())


def _entries(paths: Sequence[PeerPath]) -> tuple[Entry, ...]:
    fdb = next((path.fdb for path in paths if path.fdb), None)
    entries = [entry for path in paths for entry in path.entries]
    # All IPv6 prefixes of a peer have one neighbour.
    unique = dict.fromkeys(entries) if len(paths) > 1 else entries
    return (fdb, *unique) if fdb else tuple(unique)


def _note(notes: dict[str, tuple[Refusal, ...]], name: str, found: tuple[Refusal, ...]) -> None:
    notes.pop(name, None)
    if found:
        notes[name] = found


def _flatten(notes: Mapping[str, tuple[Refusal, ...]]) -> tuple[Refusal, ...]:
    return tuple(refusal for name in sorted(notes) for refusal in notes[name])
