"""The cluster as this node sees it: lists and events in, snapshots and the saved state out."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, NamedTuple

from daemon.log import Log
from daemon.model import Node
from daemon.sources.cache import LastKnown, parse_node, show_node
from daemon.sources.kubernetes.claim_check import ClaimCheck, Records
from daemon.sources.kubernetes.events import CHANGES, parse_event
from daemon.sources.kubernetes.objects import (
    NodeRecord,
    UnusableObject,
    find_position,
    name_of,
    parse_claim,
)
from daemon.sources.remote import Feed
from kernel.model import IPNetwork

FORMER_MAX = 100
"""Former nodes of the saved state."""
_LOGGED_MAX = 1000


@dataclass(frozen=True, slots=True)
class _Listed:
    """An object of a list. claim: None where it cannot be used. own: this node's object."""

    name: str
    claim: Node | None = None
    own: Any = None


class Received(NamedTuple):
    """This node's own object; None where there is none. is_current: it was in a list."""

    thing: Any
    is_current: bool


Inbox = SimpleQueue[Received | None]
"""Takes this node's own object whenever it is received; None: there may be something else to do."""


class ClusterView:
    """Its methods may be called from any thread. own: takes this node's own object."""

    def __init__(
        self,
        me: str,
        ranges: tuple[IPNetwork, ...],
        feed: Feed,
        log: Log,
        own: Inbox,
    ) -> None:
        self.position = ""
        """The resourceVersion from which a watch can continue; empty = a list is needed."""
        self._me, self._ranges, self._feed, self._log = me, ranges, feed, log
        self._own = own
        self._mutex = threading.RLock()
        self._check = ClaimCheck(me)
        self._is_whole = False
        self._fed = -1
        self._logged: set[tuple[str, str]] = set()
        self._uid = ""

    @property
    def waiting(self) -> tuple[Node, ...]:
        """Claims whose Nodes must be read; see ClaimCheck."""
        with self._mutex:
            return self._check.waiting

    @property
    def size(self) -> int:
        """The number of nodes."""
        return len(self._check)

    def resume(self, known: LastKnown) -> bool:
        """Start with what an earlier daemon knew; whether a watch can continue from there.

        Not where the own Node has another uid: it was made again, or is of another cluster.
        """
        with self._mutex:
            own = self._check.get(self._me)
            try:
                position, uid, former = json.loads(known.position)
                former = tuple(map(parse_node, former))
            except (ValueError, TypeError, AttributeError, RecursionError):
                return False
            if own is None or uid != self._uid:
                return False
            others = [node for node in known.nodes if node.name != self._me]
            if not position:
                self._check.remember((*former, *others))
                return False
            self._check = ClaimCheck(self._me, others)
            self._check.put_own(own)
            self._check.remember(former)
            self._is_whole, self.position = True, str(position)
            self._emit()
            return True

    # -- lists and events

    def replace(self, items: Iterable[object], position: str) -> None:
        """Take all objects there are, as of a resourceVersion."""
        claims: list[Node] = []
        unusable: set[str] = set()
        own = None
        for item in items:
            listed = item if isinstance(item, _Listed) else self.read_listed(item)
            if listed.name == self._me:
                own = listed.own
            elif listed.claim:
                claims.append(listed.claim)
            else:
                unusable.add(listed.name)
        with self._mutex:
            self._check.replace(claims, unusable)
            self._is_whole, self.position = True, position
            self._emit()
        self._own.put(Received(own, is_current=True))

    def read_listed(self, thing: object) -> _Listed:
        """What `replace` needs of an object of a list."""
        try:
            name = name_of(thing)
        except UnusableObject as error:
            self._refuse("a NodeNetwork", str(error))
            return _Listed("")
        if name == self._me:
            return _Listed(name, own=thing)
        return _Listed(name, self._parse(name, thing))

    def events(self, lines: Iterable[bytes]) -> int:
        """Take lines of a watch; the number of changes. Raises ApiError where they end it."""
        changes = 0
        with self._mutex:
            try:
                for line in lines:
                    changes += self._event(line)
            finally:
                self._emit()
        return changes

    def _event(self, line: bytes) -> bool:
        try:
            event = parse_event(line, "the watch of NodeNetworks")
            is_change = event.kind in CHANGES
            name = name_of(event.thing) if is_change else ""
        except UnusableObject as error:
            self._refuse("an event", str(error))
            return False
        self.position = find_position(event.thing) or self.position
        if is_change:
            self._change(name, None if event.kind == "DELETED" else event.thing)
        return is_change

    def _change(self, name: str, thing: object) -> None:
        if name == self._me:
            self._own.put(Received(thing, is_current=False))
        elif thing is None:
            self._check.drop(name)
        elif claim := self._parse(name, thing):
            self._check.put(claim)

    def _parse(self, name: str, thing: object) -> Node | None:
        """What an object claims; None where it cannot be used: what is known of its node stays."""
        try:
            claim = parse_claim(thing, self._ranges)
        except UnusableObject as error:
            self._refuse(f"NodeNetwork {name}", str(error))
            return None
        for why in claim.left_out:
            self._refuse(f"NodeNetwork {name}", why)
        return self._feed.same(claim.node)

    # -- what Nodes say

    def put_own(self, record: NodeRecord) -> None:
        """This node's Node was read."""
        with self._mutex:
            self._uid = record.uid
            self._check.put_own(record.node)
            self._emit()

    def next_rival(self, claim: Node, record: NodeRecord | None, rivals: Records) -> str:
        """Whose Node must be read, too, before a claim is settled; see ClaimCheck."""
        with self._mutex:
            return self._check.next_rival(claim, record, rivals)

    def settle(self, claim: Node, record: NodeRecord | None, rivals: Records | None = None) -> None:
        """The Node of a waiting claim was read, and those of its rivals; None: there is none."""
        with self._mutex:
            why = self._check.settle(claim, record, rivals)
            if why:
                self._refuse(f"NodeNetwork {claim.name}", f"is not believed: {why}")
            self._emit()

    def reopen_denied(self) -> None:
        """Have the Nodes read again that denied what was claimed for them."""
        with self._mutex:
            self._check.reopen_denied()

    # -- snapshots

    def _emit(self) -> None:
        if not self._is_whole:
            return
        if self._fed == self._check.revision:
            self._feed.mark(self._render_saved())
        else:
            self._fed = self._check.revision
            self._feed.snapshot(self._check.nodes, self._ranges, self._render_saved())

    def _render_saved(self) -> str:
        """What the next daemon needs beside the nodes: JSON, kept as `LastKnown.position`.

        While claims are not believed the position is left out: a list has them all.
        """
        if not self._uid:
            return ""
        position = self.position if self._check.is_settled else ""
        former = [show_node(node) for node in self._check.former[-FORMER_MAX:]]
        return json.dumps([position, self._uid, former])

    def _refuse(self, what: str, why: str) -> None:
        if (what, why) in self._logged:
            return
        if len(self._logged) >= _LOGGED_MAX:
            self._logged.clear()
        self._logged.add((what, why))
        self._log.warning(f"{what} is left out, or part of it: {why}")
