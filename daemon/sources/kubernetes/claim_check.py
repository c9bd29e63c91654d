"""Which claims of NodeNetworks are believed, and for which ones the Node must be read first.

A daemon can write its own node's object only (the admission policy in packaging/kubernetes), so a
claim is believed at once, unless it conflicts:

- it shares a prefix or an address with what another node claims, has, or had before,
- or its prefix is larger than those that the control plane gives to nodes.

A conflicting claim waits until the Node of its name was read, whose `spec.podCIDRs` and internal
addresses decide. So a compromised node can at worst claim what no other node has, and an ordinary
change costs no read. Pure: the worker reads the Nodes.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from daemon.model import Node
from daemon.prefix_set import Block, PrefixSet, block_of
from daemon.sources.kubernetes.objects import NodeRecord
from kernel.model import IPAddress

USUAL_LENGTHS = {4: 24, 6: 64}
"""Of a node's pod CIDRs by family (kube-controller-manager, --node-cidr-mask-size-ipv4, -ipv6)."""
FORMER_MAX = 10_000
"""Nodes whose former prefixes and addresses are kept."""


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

    def settle(self, claim: Node, record: NodeRecord | None) -> str:
        """Decide a waiting claim by its Node; None: there is no such Node.

        Returns why the claim is denied; empty where it is believed, or does not wait any more.
        """
        name = claim.name
        if self._waiting.get(name) != claim:
            return ""  # it changed while its Node was read
        self._stop_waiting(name)
        if record is not None and record.covers(claim):
            self._confirm(claim)
            return ""
        self._denied[name] = claim
        if record is not None and record.addresses:
            self._confirm(record.node)
            return "its Node says otherwise"
        self._disbelieve(name)
        if record is None:
            self._forget(name)
        return "its Node has no address" if record else "there is no such Node"

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
