"""Which claims of NodeNetworks are believed, and for which ones the Node must be read first.

A daemon can write its own node's object only (the admission policy in packaging/kubernetes), so a
claim is believed at once, unless it conflicts:

- it shares a prefix or an address with what another node claims, has, or had before,
- or its prefix is larger than those that the control plane gives to nodes.

A conflicting claim waits until the Node of its name was read. Of prefixes its `spec.podCIDRs`
decide, which only the control plane writes. Addresses are written by the kubelet, which a
compromised node has, too: where another node uses one, and its Node has it as well, it goes to the
node that had it before, of two new ones to the one whose Node was created first. An ordinary change
costs no read. Pure: the worker reads the Nodes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import replace

from daemon.model import Node
from daemon.prefix_set import Block, PrefixSet, block_of
from daemon.sources.kubernetes.objects import NodeRecord
from kernel.model import IPAddress

USUAL_LENGTHS = {4: 24, 6: 64}
"""Of a node's pod CIDRs by family (kube-controller-manager, --node-cidr-mask-size-ipv4, -ipv6)."""
FORMER_MAX = 10_000
"""Nodes whose former prefixes and addresses are kept."""
Records = Mapping[str, NodeRecord | None]
"""Nodes by name; None where there is none."""


class ClaimCheck:
    """The nodes of a cluster as far as their claims are believed.

    me: this node's name; its own Node is its only source. nodes: believed from the start.
    """

    def __init__(self, me: str, nodes: Iterable[Node] = ()) -> None:
        self._me = me
        self._believed: dict[str, Node] = {}
        self._former: dict[str, Node] = {}
        self._waiting: dict[str, Node] = {}
        self._denied: dict[str, Node] = {}
        self._confirmed: set[str] = set()
        """Names of those in `_believed` that are as their Nodes say."""
        self._lengths: dict[int, int] = {}
        self._users = _Users()
        self.revision = 0
        """Counts changes of `nodes`."""
        for node in nodes:
            self._believe(node)

    def __len__(self) -> int:
        return len(self._believed)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that are believed, by name."""
        return tuple(self._believed[name] for name in sorted(self._believed))

    @property
    def waiting(self) -> tuple[Node, ...]:
        """Claims whose Nodes must be read, the oldest first; see `settle`."""
        return tuple(self._waiting.values())

    @property
    def is_settled(self) -> bool:
        """Whether all claims are believed: none waits, and none was denied."""
        return not (self._waiting or self._denied)

    @property
    def former(self) -> tuple[Node, ...]:
        """What nodes had before their last change or before their objects went, newest last."""
        return tuple(self._former.values())

    def get(self, name: str) -> Node | None:
        """What is believed of a node."""
        return self._believed.get(name)

    # -- claims

    def put_own(self, node: Node) -> None:
        """This node as its Node says."""
        if self._believed.get(self._me) != node:
            self._confirm(node)

    def put(self, *claims: Node) -> None:
        """New claims of these nodes. Of two in one call that conflict neither was first."""
        fresh = [claim for claim in claims if self._is_new(claim)]
        for claim in fresh:
            self._wait(claim)
        self._believe_undisputed(fresh)

    def replace(self, claims: Iterable[Node], unreadable: Container[str] = ()) -> None:
        """All claims of the cluster; nodes without one are gone, but for the unreadable ones."""
        fresh = {node.name: node for node in claims}
        for name in {*self._believed, *self._waiting, *self._denied} - fresh.keys():
            if name not in unreadable:
                self.drop(name)
        self.put(*(fresh[name] for name in sorted(fresh)))

    def drop(self, name: str) -> None:
        """The node has no object any more. What it had stays its own: its pods may still run."""
        if name == self._me:
            return
        self._denied.pop(name, None)
        self._stop_waiting(name)
        node = self._believed.get(name)
        self._disbelieve(name)
        if node is not None:
            self._remember(node)

    def remember(self, nodes: Iterable[Node]) -> None:
        """Nodes that an earlier daemon knew: a conflict with them counts, they are not routed."""
        for node in nodes:
            if node.name not in self._believed and node.name != self._me:
                self._remember(node)

    def reopen_denied(self) -> None:
        """Let denied claims wait again: their Nodes may have changed since."""
        denied, self._denied = self._denied, {}
        for claim in denied.values():
            self._wait(claim)

    def next_rival(self, claim: Node, record: NodeRecord | None, rivals: Records) -> str:
        """A node whose Node must be read, too, before the claim is settled; empty for none.

        record: the claim's Node. rivals: those that were read so far.
        """
        if record is None or self._find_winner(claim, record, rivals):
            return ""
        node = replace(_resolve(claim, record), pod_cidrs=())
        others = set(self._users.others(node)) - rivals.keys()
        return min(others, key=lambda n: (self._titles(n, node.addresses), n), default="")

    def settle(self, claim: Node, record: NodeRecord | None, rivals: Records | None = None) -> str:
        """Decide a waiting claim by its Node; None: there is no such Node. rivals: see next_rival.

        Returns why the claim is denied; empty where it is believed, or does not wait any more.
        """
        name = claim.name
        if self._waiting.get(name) != claim:
            return ""  # it changed while its Node was read
        self._stop_waiting(name)
        if record is None or not record.addresses:
            self._denied[name] = claim
            self._disbelieve(name)
            if record is None:
                self._forget(name)
            return "its Node has no address" if record else "there is no such Node"
        node, rivals = _resolve(claim, record), rivals or {}
        if winner := self._find_winner(claim, record, rivals):
            self._denied[name] = claim
            if not self._is_beyond_doubt(record, winner):
                self._disbelieve(name)
            return f"the Node of {winner.name} has its address, too"
        # Of those whose Nodes have lost an address the claims are in doubt.
        self._confirmed.difference_update(rivals.keys() - {self._me})
        if node != claim:
            self._denied[name] = claim
        self._confirm(node)
        return "" if node == claim else "its Node says otherwise"

    def _find_winner(self, claim: Node, record: NodeRecord, rivals: Records) -> NodeRecord | None:
        """The rival that an address of the claim stays with; None where there is none."""
        addresses = _resolve(claim, record).addresses
        for rival in filter(None, rivals.values()):
            shared = rival.all_addresses.intersection(addresses)
            if shared and self._rank(rival, shared) < self._rank(record, shared):
                return rival
        return None

    def _is_beyond_doubt(self, record: NodeRecord, winner: NodeRecord) -> bool:
        """Whether what is believed of a node is as its Node says, and not the winner's."""
        node = self._believed.get(record.name)
        return (
            node is not None
            and record.covers(node)
            and winner.all_addresses.isdisjoint(node.addresses)
        )

    def _rank(self, record: NodeRecord, addresses: Container[IPAddress]) -> tuple[object, ...]:
        return self._titles(record.name, addresses), record.created, record.uid

    def _titles(self, name: str, addresses: Container[IPAddress]) -> tuple[bool, ...]:
        """What a node has to show for addresses, the strongest first; False sorts before True."""
        has, had = (_has(of, name, addresses) for of in (self._believed, self._former))
        return not (has and name in self._confirmed), not has, not had

    # -- decisions

    def _is_new(self, claim: Node) -> bool:
        name = claim.name
        if name == self._me or claim in (self._waiting.get(name), self._denied.get(name)):
            return False
        self._denied.pop(name, None)
        was_waiting = self._stop_waiting(name)
        return was_waiting or claim != self._believed.get(name)

    def _believe_undisputed(self, waiting: Iterable[Node]) -> None:
        for claim in waiting:
            if not self._is_disputed(claim):
                self._change(claim)
                self._stop_waiting(claim.name)

    def _is_disputed(self, claim: Node) -> bool:
        if self._former.get(claim.name) == claim:
            # The node had all of it before: only the word of another one's Node counts against it.
            return not self._confirmed.isdisjoint(self._users.others(claim))
        return self._is_large(claim) or any(self._users.others(claim))

    def _is_large(self, claim: Node) -> bool:
        return any(
            cidr.prefixlen < self._lengths.get(cidr.version, USUAL_LENGTHS[cidr.version])
            for cidr in claim.pod_cidrs
        )

    def _change(self, node: Node) -> None:
        """Believe a node's claim; what it had before remains its own."""
        before = self._believed.get(node.name)
        self._believe(node)
        if before is not None and before != node:
            self._remember(before)

    def _confirm(self, node: Node) -> None:
        """Believe what a Node says. Others that claimed the same without such proof are read."""
        self._believe(node)
        self._confirmed.add(node.name)
        for rival in sorted(set(self._users.others(node)) - self._confirmed):
            self._forget(rival)
            if rival in self._believed and rival not in self._waiting:
                self._wait(self._believed[rival])
        self._learn_lengths(node)

    def _learn_lengths(self, node: Node) -> None:
        """A prefix as large as one that the control plane gave is not suspicious."""
        before = dict(self._lengths)
        for cidr in node.pod_cidrs:
            known = self._lengths.get(cidr.version, cidr.prefixlen)
            self._lengths[cidr.version] = min(known, cidr.prefixlen)
        if self._lengths != before:
            self._believe_undisputed(self.waiting)

    # -- the four states of a claim

    def _believe(self, node: Node) -> None:
        if self._believed.get(node.name) == node:
            return
        self._disbelieve(node.name)
        self._forget(node.name)
        self.revision += 1
        self._believed[node.name] = node
        self._users.add(node)

    def _disbelieve(self, name: str) -> None:
        self._confirmed.discard(name)
        node = self._believed.pop(name, None)
        if node is not None:
            self.revision += 1
            self._users.remove(node)
            self._reopen_denied_of_others(node)

    def _reopen_denied_of_others(self, node: Node) -> None:
        """What kept an address from another node may be over."""
        for claim in [*self._denied.values()]:
            if claim.name != node.name and not set(node.addresses).isdisjoint(claim.addresses):
                self._wait(self._denied.pop(claim.name))

    def _wait(self, claim: Node) -> None:
        self._stop_waiting(claim.name)
        self._waiting[claim.name] = claim
        self._users.add(claim)

    def _stop_waiting(self, name: str) -> bool:
        """Whether a claim of that name was waiting."""
        claim = self._waiting.pop(name, None)
        if claim is not None:
            self._users.remove(claim)
        return claim is not None

    def _remember(self, node: Node) -> None:
        self._forget(node.name)
        self._former[node.name] = node
        self._users.add(node)
        if len(self._former) > FORMER_MAX:
            self._forget(next(iter(self._former)))

    def _forget(self, name: str) -> None:
        node = self._former.pop(name, None)
        if node is not None:
            self._users.remove(node)


def _resolve(claim: Node, record: NodeRecord) -> Node:
    """What a claim comes to by its Node."""
    return claim if record.covers(claim) else record.node


def _has(nodes: Mapping[str, Node], name: str, addresses: Container[IPAddress]) -> bool:
    return name in nodes and any(a in addresses for a in nodes[name].addresses)


class _Users:
    """Names of nodes by the prefixes and addresses they use; a name may count several times."""

    def __init__(self) -> None:
        self._blocks = PrefixSet()
        self._names: dict[Block | IPAddress, tuple[str, ...]] = {}

    def add(self, node: Node) -> None:
        """Count a node's name for all that it uses."""
        for block in map(block_of, node.pod_cidrs):
            self._blocks.add(block)
        for key in _keys_of(node):
            self._names[key] = (*self._names.get(key, ()), node.name)

    def remove(self, node: Node) -> None:
        """Undo one `add` of an equal node."""
        for key in _keys_of(node):
            left = list(self._names.pop(key))
            left.remove(node.name)
            if left:
                self._names[key] = tuple(left)
            elif isinstance(key, Block):
                self._blocks.discard(key)

    def others(self, node: Node) -> Iterator[str]:
        """Names of other nodes that use any part of what this one does."""
        used: list[Block | IPAddress] = [*node.addresses]
        for block in map(block_of, node.pod_cidrs):
            used += [*self._blocks.containing(block), *self._blocks.inside(block)]
        for key in used:
            yield from (name for name in self._names.get(key, ()) if name != node.name)


def _keys_of(node: Node) -> tuple[Block | IPAddress, ...]:
    return (*map(block_of, node.pod_cidrs), *node.addresses)
