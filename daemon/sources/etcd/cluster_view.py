"""The cluster as the keys in etcd describe it, kept up to date key by key. Pure: no etcd in it.

A node has the prefixes that its record lists and whose keys name it: both must agree. A key that
another writer changed, by mistake or in malice, makes its own node or prefix be left out, with a
reason; it cannot move a subnet from one node to another one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace

from daemon.log import shorten
from daemon.model import Node, is_within
from daemon.sources.etcd.keys import (
    Keys,
    KeyValue,
    LengthKey,
    NodeKey,
    Place,
    SubnetKey,
    parse_holder,
    parse_record,
)
from kernel.model import IPNetwork

_REFUSED_MAX = 1_000
_QUOTES = ("'", '"')
GRACE = 600.0
"""Seconds: the longest pause between two attempts of a daemon, many times."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The node that holds a subnet; the rest as in `KeyValue`. foreign: its key was overwritten.

    name: where the value is no node's name, that value in quotes.
    """

    name: str
    created: int = 0
    modified: int = 0
    lease: int = 0
    foreign: bool = False


class EtcdView:
    """Nodes, and the holder of each subnet.

    ranges: nothing outside of these is ever a node's. me: this node, which describes itself.
    holders: of all subnets, this node's among them. refused: the keys that are left out, with the
    reason of each.
    """

    def __init__(self, keys: Keys, ranges: Iterable[IPNetwork], me: str) -> None:
        self._keys, self._ranges, self.me = keys, tuple(ranges), me
        self.holders: dict[IPNetwork, Holder] = {}
        self.lengths: dict[int, KeyValue] = {}
        self.refused: dict[str, str] = {}
        self.own_record: KeyValue | None = None
        self._records: dict[str, Node] = {}
        self._nodes: dict[str, Node] = {}

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes but this one; one that did not change is the same object as before."""
        return self._nodes

    @property
    def holder_names(self) -> dict[IPNetwork, str]:
        """The name of each subnet's holder."""
        return {subnet: holder.name for subnet, holder in self.holders.items()}

    def restore(self, nodes: Iterable[Node]) -> None:
        """Begin with the nodes and subnets that an earlier daemon knew."""
        for node in nodes:
            self._records[node.name] = node
            self.holders.update((subnet, Holder(node.name)) for subnet in node.pod_cidrs)
            self._rebuild(node.name)

    def replace_all(self, pairs: Iterable[KeyValue]) -> None:
        """Take these as all keys there are."""
        fresh = {pair.key: pair for pair in pairs}
        self.refused.clear()
        for place in self._places():
            if self._keys.write(place) not in fresh or self._is_unconfirmed(place):
                self._forget(place)
        for pair in fresh.values():
            self.put(pair)

    def refresh(self, places: Iterable[Place], pairs: Iterable[KeyValue]) -> None:
        """Take these as all keys there are in some places."""
        fresh = {pair.key: pair for pair in pairs}
        for place in places:
            key = self._keys.write(place)
            if key not in fresh or self._is_unconfirmed(place):
                self.delete(key)
            if key in fresh:
                self.put(fresh[key])

    def put(self, pair: KeyValue) -> None:
        """Take a key's new value."""
        label = shorten(pair.key)
        self.refused.pop(label, None)
        try:
            place = self._keys.read(pair.key)
            self._put(place, pair)
        except ValueError as error:
            self._refuse(label, str(error))

    def delete(self, key: bytes) -> None:
        """Record that a key was deleted."""
        self.refused.pop(shorten(key), None)
        try:
            self._forget(self._keys.read(key))
        except ValueError:
            return  # it is not podwire's

    def _put(self, place: Place, pair: KeyValue) -> None:
        match place:
            case NodeKey(name):
                self._put_record(name, pair)
            case SubnetKey(subnet):
                self._put_holder(subnet, pair)
            case LengthKey(version):
                self.lengths[version] = pair

    def _put_record(self, name: str, pair: KeyValue) -> None:
        if name == self.me:
            self.own_record = pair
        try:
            self._records[name] = parse_record(name, pair.value)
        except ValueError:
            self._records.pop(name, None)
            raise
        finally:
            self._rebuild(name)

    def _put_holder(self, subnet: IPNetwork, pair: KeyValue) -> None:
        old = self.holders.get(subnet)
        try:
            name = parse_holder(pair.value)
            if old and old.name != name and _is_same(old, pair):
                raise ValueError(f"is held by {old.name}: {name} was written over it")
        except ValueError:
            foreign = Holder(shorten(pair.value), pair.created, pair.modified, pair.lease, True)
            if old and _is_same(old, pair):
                foreign = replace(old, modified=pair.modified, lease=pair.lease, foreign=True)
            self.holders[subnet] = foreign
            if old:
                self._rebuild(old.name)
            raise
        self.holders[subnet] = Holder(name, pair.created, pair.modified, pair.lease)
        for changed in {name, old.name if old else name}:
            self._rebuild(changed)
        if not self._is_inside(subnet):
            raise ValueError("is outside of the cluster's ranges")

    def _forget(self, place: Place) -> None:
        match place:
            case NodeKey(name):
                self._records.pop(name, None)
                if name == self.me:
                    self.own_record = None
                self._rebuild(name)
            case SubnetKey(subnet):
                old = self.holders.pop(subnet, None)
                if old:
                    self._rebuild(old.name)
            case LengthKey(version):
                self.lengths.pop(version, None)

    def _rebuild(self, name: str) -> None:
        """Derive a node from its record and its subnets again."""
        record = self._records.get(name)
        if record is None or name == self.me:
            self._nodes.pop(name, None)
            return
        held = tuple(s for s in record.pod_cidrs if self._holds(name, s))
        node = record if held == record.pod_cidrs else Node(name, record.addresses, held)
        if self._nodes.get(name) != node:
            self._nodes[name] = node

    def _holds(self, name: str, subnet: IPNetwork) -> bool:
        holder = self.holders.get(subnet)
        return holder is not None and holder.name == name and self._is_inside(subnet)

    def _is_inside(self, subnet: IPNetwork) -> bool:
        return any(is_within(subnet, r) for r in self._ranges)

    def _places(self) -> list[Place]:
        own = {self.me} if self.own_record else set()
        return [
            *map(NodeKey, self._records.keys() | own),
            *map(SubnetKey, self.holders),
            *map(LengthKey, self.lengths),
        ]

    def _is_unconfirmed(self, place: Place) -> bool:
        """Whether an earlier daemon knew it, which did not save its revision."""
        if not isinstance(place, SubnetKey):
            return False
        holder = self.holders.get(place.subnet)
        return holder is not None and not holder.created

    def _refuse(self, label: str, why: str) -> None:
        if len(self.refused) < _REFUSED_MAX:
            self.refused[label] = why


def _is_same(old: Holder, pair: KeyValue) -> bool:
    """Whether a node has held the key since before another client than podwire wrote it.

    podwire makes and deletes these keys, and never writes another name into one. What an earlier
    daemon knew may have ended meanwhile: a key that was just made is a real one.
    """
    if old.name.startswith(_QUOTES):
        return False
    return old.created == pair.created or (not old.created and pair.created != pair.modified)


class KeptNodes:
    """Nodes of an etcd that was replaced by another one, or by an older state of itself.

    Such an etcd knows less than the daemons do, which register again one by one. For the grace, a
    node that is missing there has not left. now: seconds, monotonic.
    """

    def __init__(self, grace: float = GRACE, now: Callable[[], float] = time.monotonic) -> None:
        self._grace, self._now = grace, now
        self._nodes: dict[str, Node] = {}
        self._until = -math.inf

    @property
    def seconds_left(self) -> float:
        """Seconds until they are dropped; infinite where there are none."""
        return max(0.0, self._until - self._now()) if self._nodes else math.inf

    def keep(self, nodes: Mapping[str, Node]) -> int:
        """Keep these beside those that are kept already; the number of all."""
        self._expire()
        self._nodes |= nodes
        self._until = self._now() + self._grace
        return len(self._nodes)

    def missing(self, present: Container[str], taken: Container[IPNetwork]) -> list[Node]:
        """Those that are not present, without prefixes that others hold by now."""
        self._expire()
        gone = (node for node in self._nodes.values() if node.name not in present)
        return [_without(node, taken) for node in gone]

    def _expire(self) -> None:
        if self._now() >= self._until:
            self._nodes.clear()


def _without(node: Node, taken: Container[IPNetwork]) -> Node:
    rest = tuple(prefix for prefix in node.pod_cidrs if prefix not in taken)
    return node if rest == node.pod_cidrs else Node(node.name, node.addresses, rest)
