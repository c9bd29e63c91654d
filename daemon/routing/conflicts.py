"""Which node owns what several nodes claim: addresses, and prefixes that overlap.

This is decided here alone, in this order: this node's own claims, the owner so far, the first by
name. A loser loses the conflicting prefix alone. A change is decided again only within the prefixes
that it overlaps.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass

from daemon.config.schema import Settings
from daemon.model import Node, NoPath, Snapshot
from daemon.prefix_set import Block, PrefixSet, block_of, host_block
from daemon.routing.backends import backend_of
from kernel.model import IPAddress


@dataclass(frozen=True, slots=True)
class BlockClaim:
    """A node's claim of a block."""

    node: str
    block: Block


class _Index:
    """Blocks, and the names of the nodes that have each."""

    def __init__(self) -> None:
        self.blocks = PrefixSet()
        self._names: dict[Block, set[str]] = {}
        self._by_name: dict[str, tuple[Block, ...]] = {}

    def put(self, name: str, blocks: Iterable[Block]) -> set[Block]:
        """Replace what a node has; what it has no longer, or has now."""
        old = set(self._by_name.pop(name, ()))
        fresh = tuple(blocks)
        if fresh:
            self._by_name[name] = fresh
        changed = old.symmetric_difference(fresh)
        for block in changed:
            (self._remove if block in old else self._add)(block, name)
        return changed

    def _add(self, block: Block, name: str) -> None:
        self.blocks.add(block)
        self._names.setdefault(block, set()).add(name)

    def _remove(self, block: Block, name: str) -> None:
        self._names[block].discard(name)
        if not self._names[block]:
            del self._names[block]
            self.blocks.discard(block)

    def names(self, block: Block) -> Collection[str]:
        return self._names.get(block, ())

    def containing(self, block: Block) -> Iterator[tuple[str, Block]]:
        return self._named(self.blocks.containing(block))

    def inside(self, block: Block) -> Iterator[tuple[str, Block]]:
        return self._named(self.blocks.inside(block))

    def _named(self, blocks: Iterable[Block]) -> Iterator[tuple[str, Block]]:
        return ((name, block) for block in blocks for name in sorted(self._names[block]))


class Claims:
    """All claims of one kind, and which node owns what.

    me: the name of this node. owners: what nodes own already, before anything is claimed.
    """

    def __init__(self, me: str, owners: Mapping[Block, str] | None = None) -> None:
        self._me = me
        self.claims = _Index()
        self._owners: dict[Block, str] = dict(owners or {})
        self._losses: dict[BlockClaim, BlockClaim] = {}
        self._unsettled: set[Block] = set()
        self._settled_once = False
        self._owned: tuple[Block, ...] | None = None

    def put(self, node: str, blocks: Iterable[Block]) -> None:
        """Replace what a node claims; no blocks remove the node."""
        for block in self.claims.put(node, blocks):
            self._losses.pop(BlockClaim(node, block), None)
            self._unsettled.add(block)

    def settle(self) -> set[str]:
        """Decide what changed; the nodes for which anything is decided otherwise than before."""
        if self._unsettled or not self._settled_once:
            self._owned = None
        changed: set[str] = set()
        while self._unsettled:
            changed |= self._settle_overlapping(self._unsettled.pop())
        if not self._settled_once:
            # An owner at the start that does not claim its block loses it for good.
            owners = self._owners.items()
            self._owners = {b: n for b, n in owners if n in self.claims.names(b)}
            self._settled_once = True
        return changed

    def _settle_overlapping(self, block: Block) -> set[str]:
        """Decide on all claims that share addresses with a block."""
        names = self.claims.names(block)
        if len(names) == 1 and self.claims.blocks.is_disjoint(block):
            (name,) = names
            return self._grant(BlockClaim(name, block))
        *_, widest = (block, *self.claims.blocks.containing(block))
        members = self.claims.blocks.inside(widest)
        self._unsettled.difference_update(members)
        claims = [BlockClaim(name, b) for b in members for name in self.claims.names(b)]
        changed = self._assign(*self._decide(claims), claims)
        if not names:
            self._owners.pop(block, None)
        return changed

    def _grant(self, claim: BlockClaim) -> set[str]:
        """Grant a claim that has no rival; the nodes for which that is new."""
        lost = self._losses.pop(claim, None) if self._losses else None
        owned = self._owners.get(claim.block) == claim.node
        self._owners[claim.block] = claim.node
        return set() if owned and lost is None else {claim.node}

    def _decide(
        self, claims: list[BlockClaim]
    ) -> tuple[dict[Block, str], dict[BlockClaim, BlockClaim]]:
        granted = PrefixSet()
        owners: dict[Block, str] = {}
        losers = []
        for claim in sorted(claims, key=self._rank):
            if granted.overlapping(claim.block) is None:
                granted.add(claim.block)
                owners[claim.block] = claim.node
            else:
                losers.append(claim)
        # Winners are named at the end, so that the order of events does not decide which one is.
        rivals = ((claim, granted.overlapping(claim.block)) for claim in losers)
        return owners, {claim: BlockClaim(owners[r], r) for claim, r in rivals if r}

    def _rank(self, claim: BlockClaim) -> tuple[bool, bool, str, Block]:
        if claim.node == self._me:
            return False, False, claim.node, claim.block
        owns = self._owners.get(claim.block) == claim.node
        return True, not owns, claim.node, claim.block

    def _assign(
        self,
        owners: Mapping[Block, str],
        losses: Mapping[BlockClaim, BlockClaim],
        claims: Iterable[BlockClaim],
    ) -> set[str]:
        changed = set()
        for claim in claims:
            owned = self._owners.get(claim.block) == claim.node
            owns = owners.get(claim.block) == claim.node
            if owned != owns or self._losses.get(claim) != losses.get(claim):
                changed.add(claim.node)
            self._losses.pop(claim, None)
        for block in {claim.block for claim in claims}:
            self._owners.pop(block, None)
        self._owners.update(owners)
        self._losses.update(losses)
        return changed

    def owns(self, node: str, block: Block) -> bool:
        """Whether the node owns the block, as last settled (at the start before the first time)."""
        return self._owners.get(block) == node

    def winner(self, node: str, block: Block) -> BlockClaim | None:
        """The claim that a node's claim lost against; None where it did not lose."""
        return self._losses.get(BlockClaim(node, block)) if self._losses else None

    def owned(self) -> tuple[Block, ...]:
        """All blocks that have an owner, in order; the same object until that may have changed."""
        if self._owned is None:
            self._owned = tuple(filter(self._owners.__contains__, self.claims.blocks))
        return self._owned


@dataclass(frozen=True, slots=True)
class Adopted:
    """What nodes own at the start: blocks of prefixes and of single addresses, by block."""

    prefixes: Mapping[Block, str]
    addresses: Mapping[Block, str]


class Ownership:
    """Which node owns which address and which prefix; me is the name of this node.

    A prefix with a node's underlay address in it is a conflict too: packets to that node would go
    into the tunnel that they are to carry. Between two nodes the one that came first keeps its own.
    prefixes: the claims of prefixes, which follow those of addresses.
    """

    def __init__(self, me: str, adopted: Adopted | None = None) -> None:
        self._me = me
        self._nodes: dict[str, Node] = {}
        self._addresses = Claims(me, adopted.addresses if adopted else None)
        self.prefixes = Claims(me, adopted.prefixes if adopted else None)
        # All that nodes have in the source, whether they claim it or not.
        self._all_prefixes = _Index()

    def update(self, changes: Mapping[str, Node | None]) -> set[str]:
        """Replace nodes, None for one that left; all nodes that this may make a difference for."""
        affected = set(changes)
        for name, node in changes.items():
            affected |= self._crossing(self._nodes.pop(name, None))
            self._addresses.put(name, map(host_block, node.addresses) if node else ())
            self._all_prefixes.put(name, map(block_of, node.pod_cidrs) if node else ())
            affected |= self._crossing(node)
            if node is not None:
                self._nodes[name] = node
        return affected | self._addresses.settle()

    def _crossing(self, node: Node | None) -> set[str]:
        """The nodes with a prefix around a node's addresses, or an address in its prefixes."""
        if node is None:
            return set()
        around = (f for a in node.addresses for f in self._all_prefixes.containing(host_block(a)))
        inside = (f for p in node.pod_cidrs for f in self._addresses.claims.inside(block_of(p)))
        return {name for name, _block in (*around, *inside)}

    def address_conflicts(
        self, node: Node, local: Container[IPAddress] = ()
    ) -> Mapping[IPAddress, NoPath]:
        """Those of a node's addresses that it cannot have, and why. local: of this node's links."""
        found = ((a, self._address_conflict(node.name, a, local)) for a in node.addresses)
        return {address: why for address, why in found if why}

    def _address_conflict(
        self, name: str, address: IPAddress, local: Container[IPAddress]
    ) -> NoPath | None:
        winner = self._addresses.winner(name, host_block(address))
        if winner:
            return NoPath(f"its address {address} is that of {winner.node} too", winner.node)
        if address in local:
            return NoPath(f"its address {address} is on this node")
        for other, block in self._all_prefixes.containing(host_block(address)):
            if other != name and (other == self._me or self.prefixes.owns(other, block)):
                return NoPath(f"its address {address} is in {block} of {other}", other)
        return None

    def contained_address(self, name: str, block: Block) -> NoPath | None:
        """The node that could not be reached if a peer got a prefix."""
        if name == self._me:
            return None
        owns = self.prefixes.owns(name, block)
        for other, address in self._addresses.claims.inside(block):
            # A node that comes with an address in what a peer owns already is itself refused.
            if other in (name, self._me) or not owns:
                whose = "its own address" if other == name else f"an address of {other}"
                why = f"contains {address.address}, {whose}: the path there would lead into itself"
                return NoPath(why, "" if other == name else other)
        return None

    def prefix_conflict(self, name: str, block: Block) -> NoPath:
        """Why a node does not own a prefix that it claims."""
        winner = self.prefixes.winner(name, block)
        if winner is None:
            return NoPath("is taken")
        return NoPath(f"overlaps {winner.block} of {winner.node}, which keeps it", winner.node)


def find_contradictions(settings: Settings, snapshot: Snapshot) -> Iterator[str]:
    """Everything in a list of nodes that keeps a node or a prefix from being reached.

    What depends on the node's own links and routes is left out, and no node owns anything yet.
    """
    me = next((node for node in snapshot.nodes if node.name == settings.node), None)
    if me is None:
        yield f"{settings.node}, this node, is not in the list: nothing will be routed here"
    yield from _find_shared(settings, snapshot)
    if me is not None:
        yield from _find_lacking(settings, me, snapshot)


def _find_shared(settings: Settings, snapshot: Snapshot) -> Iterator[str]:
    ownership = Ownership(settings.node)
    ownership.update({node.name: node for node in snapshot.nodes})
    for node in snapshot.nodes:
        ownership.prefixes.put(node.name, map(block_of, node.pod_cidrs))
    ownership.prefixes.settle()
    for node in snapshot.nodes:
        for why, _other in ownership.address_conflicts(node).values():
            yield f"{node.name}: {why}"
        for prefix in node.pod_cidrs:
            if not ownership.prefixes.owns(node.name, block_of(prefix)):
                why, _other = ownership.prefix_conflict(node.name, block_of(prefix))
                yield f"{node.name}: its pod CIDR {prefix} {why}"


def _find_lacking(settings: Settings, me: Node, snapshot: Snapshot) -> Iterator[str]:
    if not me.underlay(settings.underlay):
        why = f"has no IPv{settings.underlay} address, which `underlay` asks for"
        yield f"{me.name}, this node, {why}"
    if not me.pod_cidrs:
        yield f"{me.name}, this node, has no pod CIDR: no pod will be made here"
    families = {a.version for a in me.addresses} | {p.version for p in me.pod_cidrs}
    backend = backend_of(settings)
    for node in snapshot.nodes:
        for prefix in node.pod_cidrs if node is not me else ():
            why = backend.lacking_address(me, node, prefix.version)
            if prefix.version in families and why:
                yield f"{node.name}: its pod CIDR {prefix} is not reached: {why}"
