"""The cluster as the keys describe it, kept up to date key by key. Pure: no etcd in it.

A node has the prefixes that its record lists and whose keys name it: both must agree. What
somebody else wrote there, by hand or in malice, makes its own node or prefix be left out, and is
told; it cannot move a subnet from one node to another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from daemon.model import Node
from daemon.sources.etcd.keys import Keys, LengthKey, NodeKey, Place, SubnetKey
from daemon.sources.etcd.values import Pair, parse_holder, parse_record, shorten
from kernel.model import IPNetwork

K = TypeVar("K")

_NODES_MAX = 20_000
_SUBNETS_MAX = 80_000
_REFUSED_MAX = 1_000
_QUOTES = ("'", '"')


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a subnet; the rest as in `Pair`. foreign: its key says something else by now.

    name: of no node, but what the key says, in quotes, where nobody but a human wrote it.
    """

    name: str
    created: int = 0
    modified: int = 0
    lease: int = 0
    foreign: bool = False


class Picture:
    """Nodes, and who holds which subnet.

    ranges: nothing outside of these is ever a node's. me: this node, which describes itself.
    holders: of all subnets, this node's among them. refused: what is left out, and why.
    """

    def __init__(self, keys: Keys, ranges: Iterable[IPNetwork], me: str) -> None:
        self._keys, self._ranges, self.me = keys, tuple(ranges), me
        self.holders: dict[IPNetwork, Holder] = {}
        self.lengths: dict[int, Pair] = {}
        self.refused: dict[str, str] = {}
        self.own_record: Pair | None = None
        self._records: dict[str, Node] = {}
        self._nodes: dict[str, Node] = {}

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes but this one; one that did not change is the same object as before."""
        return self._nodes

    @property
    def names(self) -> dict[IPNetwork, str]:
        """The name of each subnet's holder."""
        return {subnet: holder.name for subnet, holder in self.holders.items()}

    def recall(self, nodes: Iterable[Node]) -> None:
        """Take these for the nodes and subnets there are, as an earlier daemon knew them."""
        for node in nodes:
            self._records[node.name] = node
            self.holders.update((subnet, Holder(node.name)) for subnet in node.pod_cidrs)
            self._draw(node.name)

    def redraw(self, pairs: Iterable[Pair]) -> None:
        """Take these for all there are."""
        fresh = {pair.key: pair for pair in pairs}
        self.refused.clear()
        for place in self._places():
            if self._keys.write(place) not in fresh or self._is_hearsay(place):
                self._forget(place)
        for pair in fresh.values():
            self.put(pair)

    def refresh(self, places: Iterable[Place], pairs: Iterable[Pair]) -> None:
        """Take these for all there is in some places."""
        fresh = {pair.key: pair for pair in pairs}
        for place in places:
            key = self._keys.write(place)
            if key not in fresh or self._is_hearsay(place):
                self.delete(key)
            if key in fresh:
                self.put(fresh[key])

    def put(self, pair: Pair) -> None:
        """Take a key's new value."""
        label = shorten(pair.key)
        self.refused.pop(label, None)
        try:
            place = self._keys.read(pair.key)
            self._put(place, pair)
        except ValueError as error:
            self._refuse(label, str(error))

    def delete(self, key: bytes) -> None:
        """Take it that a key is gone."""
        self.refused.pop(shorten(key), None)
        try:
            self._forget(self._keys.read(key))
        except ValueError:
            return  # it never was podwire's

    def _put(self, place: Place, pair: Pair) -> None:
        match place:
            case NodeKey(name):
                self._put_record(name, pair)
            case SubnetKey(subnet):
                self._put_holder(subnet, pair)
            case LengthKey(version):
                self.lengths[version] = pair

    def _put_record(self, name: str, pair: Pair) -> None:
        if name == self.me:
            self.own_record = pair
        _check_room(name, self._records, _NODES_MAX, "nodes")
        try:
            self._records[name] = parse_record(name, pair.value)
        except ValueError:
            self._records.pop(name, None)
            raise
        finally:
            self._draw(name)

    def _put_holder(self, subnet: IPNetwork, pair: Pair) -> None:
        _check_room(subnet, self.holders, _SUBNETS_MAX, "subnets")
        old = self.holders.get(subnet)
        try:
            name = parse_holder(pair.value)
            if old and old.name != name and _is_same(old, pair):
                raise ValueError(f"is held by {old.name}: somebody wrote {name} over it")
        except ValueError:
            words = Holder(shorten(pair.value), pair.created, pair.modified, pair.lease, True)
            if old and _is_same(old, pair):
                words = replace(old, modified=pair.modified, lease=pair.lease, foreign=True)
            self.holders[subnet] = words
            if old:
                self._draw(old.name)
            raise
        self.holders[subnet] = Holder(name, pair.created, pair.modified, pair.lease)
        for changed in {name, old.name if old else name}:
            self._draw(changed)
        if not self._is_inside(subnet):
            raise ValueError("is outside of the cluster's ranges")

    def _forget(self, place: Place) -> None:
        match place:
            case NodeKey(name):
                self._records.pop(name, None)
                if name == self.me:
                    self.own_record = None
                self._draw(name)
            case SubnetKey(subnet):
                old = self.holders.pop(subnet, None)
                if old:
                    self._draw(old.name)
            case LengthKey(version):
                self.lengths.pop(version, None)

    def _draw(self, name: str) -> None:
        """Make a node anew from its record and its subnets."""
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
        return any(_within(subnet, r) for r in self._ranges)

    def _places(self) -> list[Place]:
        own = {self.me} if self.own_record else set()
        return [
            *map(NodeKey, self._records.keys() | own),
            *map(SubnetKey, self.holders),
            *map(LengthKey, self.lengths),
        ]

    def _is_hearsay(self, place: Place) -> bool:
        """Whether it is of an earlier daemon, which did not say as of when."""
        if not isinstance(place, SubnetKey):
            return False
        holder = self.holders.get(place.subnet)
        return holder is not None and not holder.created

    def _refuse(self, label: str, why: str) -> None:
        if len(self.refused) < _REFUSED_MAX:
            self.refused[label] = why


def _is_same(old: Holder, pair: Pair) -> bool:
    """Whether a node holds the key since before this was written, of which it is no part.

    podwire makes and deletes these keys, and never writes another name into one. What is known
    from an earlier daemon may have ended unseen: a key that was just made is a real one.
    """
    if old.name.startswith(_QUOTES):
        return False
    return old.created == pair.created or (not old.created and pair.created != pair.modified)


def _within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.overlaps(outer)
    )


def _check_room(key: K, table: Mapping[K, object], most: int, what: str) -> None:
    if key not in table and len(table) >= most:
        raise ValueError(f"is beyond the {most} {what} that there may be")
