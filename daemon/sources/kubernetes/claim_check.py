"""Which nodes are believed: what objects claim, and what Nodes must be asked about first.

An object may be written by somebody else than its node. So what is claimed waits until that Node
itself was read, whose pod CIDRs and internal addresses are the control plane's word, wherever it

- is what another node has, or had before its object went: a daemon may stop while its pods live on,
- is a change of a node that is known, unless that node proved it its own (see pins) and its pod
  CIDRs, which a Node gets once, are the same,
- is a prefix larger than any that the control plane is known to give a node.

Everything else is believed at once: nobody has lost anything by it, and nobody has to read all
Nodes. Pure: reading is for others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from daemon.model import Node
from daemon.prefix_set import Block, PrefixSet, block_of
from daemon.sources.kubernetes.objects import Authority
from kernel.model import IPAddress

K = TypeVar("K")

USUAL_LENGTHS = {4: 24, 6: 64}
"""Of a node's pod CIDRs by family (kube-controller-manager, --node-cidr-mask-size-ipv4, -ipv6)."""
LEFT_MAX = 10_000
"""Nodes without an object that are remembered."""


class Roster:
    """The nodes of a cluster, as one of them believes them to be.

    me: its name; what it says of itself is never asked about. nodes: believed to begin with.
    """

    def __init__(self, me: str, nodes: Iterable[Node] = ()) -> None:
        self._me = me
        self._believed: dict[str, Node] = {}
        self._pending: dict[str, Node] = {}
        self._denied: dict[str, Node] = {}
        self._asked: dict[str, int] = {}
        self._questions = 0
        self._unproven: set[str] = set()
        self._proven: set[str] = set()
        self._left: dict[str, Node] = {}
        self._lengths: dict[int, int] = {}
        self.revision = 0
        """Counts changes of `nodes`."""
        self._blocks = PrefixSet()
        self._holders: dict[Block, tuple[str, ...]] = {}
        self._homes: dict[IPAddress, tuple[str, ...]] = {}
        for node in nodes:
            self._believe(node)

    def __len__(self) -> int:
        return len(self._believed)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Everybody who is believed, by name."""
        return tuple(self._believed[name] for name in sorted(self._believed))

    @property
    def questions(self) -> tuple[str, ...]:
        """The names of the Nodes to read, the longest due first; see `rule`."""
        return tuple(self._asked)

    def question(self, name: str) -> int:
        """Which question is asked about a node, counted from 1; 0 = none."""
        return self._asked.get(name, 0)

    @property
    def denied(self) -> tuple[Node, ...]:
        """Claims that the Node did not bear out."""
        return tuple(self._denied.values())

    @property
    def open(self) -> tuple[Node, ...]:
        """Claims that are not believed: those that wait for an answer, and those denied."""
        return (*self._pending.values(), *self._denied.values())

    @property
    def left(self) -> tuple[Node, ...]:
        """Nodes that have no object any more, the latest last; see `remember`."""
        return tuple(self._left.values())

    def knows(self, name: str) -> bool:
        """Whether anything is known of a node: whom there was no word of before is believed."""
        return any(
            name in known for known in (self._believed, self._pending, self._denied, self._left)
        )

    def get(self, name: str) -> Node | None:
        """What is believed of a node."""
        return self._believed.get(name)

    def put_own(self, node: Node) -> None:
        """What this node knows of itself."""
        if self._believed.get(self._me) != node:
            self._believe(node)
            self._learn(node)

    def remember(self, nodes: Iterable[Node]) -> None:
        """Nodes that there were once: whatever is like them needs no answer, what is not does."""
        for node in nodes:
            if node.name not in self._believed and node.name != self._me:
                self._leave(node)

    def reopen(self, claim: Node) -> None:
        """A claim that was not believed when it was heard."""
        if claim.name != self._me:
            self._consider(claim)
            self._ask(claim.name)

    def replace(self, claims: Iterable[Node], others: Iterable[str] = ()) -> None:
        """All claims that there are; nobody else is in the cluster.

        others: names whose claims cannot be read.
        """
        fresh = {node.name: node for node in claims}
        known = {*self._believed, *self._pending, *self._denied}
        for name in known - fresh.keys() - set(others):
            self.drop(name)
        for name in others:
            self.put_unusable(name)
        self._unproven.clear()
        for name in sorted(fresh):
            fresh_here = name not in self._believed
            self.put(fresh[name])
            if fresh_here and name in self._believed:
                self._unproven.add(name)
        self._unproven.clear()

    def put(self, claim: Node, *, vouched: bool = False) -> None:
        """One claim, instead of what was claimed for that name before.

        vouched: the node is known to have written it itself.
        """
        name = claim.name
        if name == self._me or (not vouched and self._denied.get(name) == claim):
            return
        self._denied.pop(name, None)
        old = self._believed.get(name)
        self._withdraw(name)
        if claim == old:
            self._asked.pop(name, None)
            return
        rivals = set(self._rivals(claim))
        before = old or self._left.get(name, claim)
        is_own = before == claim or (vouched and before.pod_cidrs == claim.pod_cidrs)
        if is_own and not rivals and not self._is_large(claim):
            self._believe(claim)
            self._asked.pop(name, None)
            return
        self._consider(claim)
        for asked in (name, *sorted(rivals)):
            if asked in self._believed or asked in self._pending:
                self._doubt(asked)

    def _ask(self, name: str) -> None:
        if name not in self._asked:
            self._questions += 1
            self._asked[name] = self._questions

    def put_unusable(self, name: str) -> None:
        """A claim that cannot be read: whoever is known is asked what is so."""
        if name in self._believed:
            self._doubt(name)

    def _doubt(self, name: str) -> None:
        if name == self._me:
            return
        self._ask(name)
        # Of two that came together neither was there before the other.
        if name in self._unproven:
            self._consider(self._believed[name])
            self._disbelieve(name)

    def drop(self, name: str) -> None:
        """Nothing is claimed for that name any more."""
        if name == self._me:
            return
        self._denied.pop(name, None)
        self._asked.pop(name, None)
        self._withdraw(name)
        node = self._believed.get(name)
        self._disbelieve(name)
        if node is not None:
            self._leave(node)

    def ask_again(self, name: str) -> None:
        """Let a denied claim be looked at once more: its Node may have changed since."""
        claim = self._denied.pop(name, None)
        if claim is not None:
            self.reopen(claim)

    def rule(self, name: str, authority: Authority | None) -> str:
        """Believe what a Node says; None: there is no such Node. Why a claim is not believed."""
        self._asked.pop(name, None)
        claim = self._withdraw(name) or self._believed.get(name)
        if claim is None:
            return ""
        if authority is not None and authority.covers(claim):
            self._believe_proven(claim)
            return ""
        self._denied[name] = claim
        if authority is not None and authority.addresses:
            self._believe_proven(authority.node)
            return "its Node does not bear it out"
        self._disbelieve(name)
        if authority is None:
            self._forget(name)
        return "its Node has no address" if authority else "there is no such Node"

    def _believe(self, node: Node) -> None:
        if self._believed.get(node.name) == node:
            return
        self._disbelieve(node.name)
        self._forget(node.name)
        self.revision += 1
        self._believed[node.name] = node
        self._insert(node)

    def _believe_proven(self, node: Node) -> None:
        """Believe it, and doubt whoever has something of it without a Node's word for that."""
        self._believe(node)
        self._proven.add(node.name)
        for rival in sorted(set(self._rivals(node)) - self._proven):
            self._forget(rival)
            if rival in self._believed or rival in self._pending:
                self._doubt(rival)
        self._learn(node)

    def _disbelieve(self, name: str) -> None:
        self._unproven.discard(name)
        self._proven.discard(name)
        node = self._believed.pop(name, None)
        if node is not None:
            self.revision += 1
            self._remove(node)

    def _leave(self, node: Node) -> None:
        """Remember who has no object any more."""
        self._forget(node.name)
        self._left[node.name] = node
        self._insert(node)
        if len(self._left) > LEFT_MAX:
            self._forget(next(iter(self._left)))

    def _forget(self, name: str) -> None:
        node = self._left.pop(name, None)
        if node is not None:
            self._remove(node)

    def _learn(self, node: Node) -> None:
        """What a Node has is no larger than what the control plane gives."""
        large = [claim for claim in self._pending.values() if self._is_large(claim)]
        for cidr in node.pod_cidrs:
            known = self._lengths.get(cidr.version, cidr.prefixlen)
            self._lengths[cidr.version] = min(known, cidr.prefixlen)
        for claim in large:
            if not self._is_large(claim):
                self.put(claim)

    def _is_large(self, claim: Node) -> bool:
        return any(
            cidr.prefixlen < self._lengths.get(cidr.version, USUAL_LENGTHS[cidr.version])
            for cidr in claim.pod_cidrs
        )

    def _consider(self, claim: Node) -> None:
        """Let a claim wait for an answer; what it claims is in dispute until then."""
        self._withdraw(claim.name)
        self._pending[claim.name] = claim
        self._insert(claim)

    def _withdraw(self, name: str) -> Node | None:
        claim = self._pending.pop(name, None)
        if claim is not None:
            self._remove(claim)
        return claim

    def _insert(self, node: Node) -> None:
        mine = (node.name,)
        for block in map(block_of, node.pod_cidrs):
            self._blocks.add(block)
            _insert(self._holders, block, mine)
        for address in node.addresses:
            _insert(self._homes, address, mine)

    def _remove(self, node: Node) -> None:
        for block in map(block_of, node.pod_cidrs):
            if not _remove(self._holders, block, node.name):
                self._blocks.discard(block)
        for address in node.addresses:
            _remove(self._homes, address, node.name)

    def _rivals(self, claim: Node) -> Iterator[str]:
        """Others who have, or claim, something of what a node claims."""
        for block in map(block_of, claim.pod_cidrs):
            for held in (*self._blocks.containing(block), *self._blocks.inside(block)):
                yield from (n for n in self._holders[held] if n != claim.name)
        for address in claim.addresses:
            yield from (n for n in self._homes.get(address, ()) if n != claim.name)


def _insert(names: dict[K, tuple[str, ...]], key: K, mine: tuple[str, ...]) -> None:
    others = names.get(key)
    names[key] = (*others, *mine) if others else mine


def _remove(names: dict[K, tuple[str, ...]], key: K, name: str) -> bool:
    """Take a name out once; whether any is left."""
    left = list(names[key])
    left.remove(name)
    if left:
        names[key] = tuple(left)
    else:
        del names[key]
    return bool(left)
