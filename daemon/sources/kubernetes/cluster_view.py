"""The cluster as this node sees it: lists and events in, snapshots and the saved state out."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from daemon.log import Log
from daemon.model import Node
from daemon.sources.cache import LastKnown, parse_node, show_node
from daemon.sources.kubernetes.claim_check import ClaimCheck
from daemon.sources.kubernetes.objects import (
    NodeRecord,
    UnusableObject,
    find_position,
    is_position,
    name_of,
    parse_claim,
)
from daemon.sources.kubernetes.stream import failure_of, read_json
from daemon.sources.remote import Feed, SourceError
from kernel.model import IPNetwork

UNSETTLED_MAX = FORMER_MAX = 100
"""Claims and former nodes of the saved state. With more unsettled claims a list is cheaper."""
_LOGGED_MAX = 1000
_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})
_KINDS = _CHANGES | {"BOOKMARK", "ERROR"}


class ClusterView:
    """Its methods may be called from any thread.

    on_own: called with this node's own object whenever it is received, None where there is none,
    and whether that was in a list.
    """

    def __init__(
        self,
        me: str,
        ranges: tuple[IPNetwork, ...],
        feed: Feed,
        log: Log,
        on_own: Callable[[Any, bool], None],
    ) -> None:
        self.position = ""
        """The resourceVersion from which a watch can continue; empty = a list is needed."""
        self._me, self._ranges, self._feed, self._log = me, ranges, feed, log
        self._on_own = on_own
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
            saved, own = _parse_saved(known.position), self._check.get(self._me)
            if saved is None or own is None or saved.uid != self._uid:
                return False
            others = [node for node in known.nodes if node.name != self._me]
            if not saved.position:
                self._check.remember((*saved.former, *others))
                return False
            self._check = ClaimCheck(self._me, others)
            self._check.put_own(own)
            self._check.remember(saved.former)
            self._check.reopen(saved.unsettled)
            self._is_whole, self.position = True, saved.position
            self._emit()
            return True

    def is_ahead_of(self, position: str) -> bool:
        """Whether that resourceVersion is lower: the API was restored from a backup.

        A watch from here would be accepted, and send nothing until the API has caught up.
        """
        both = position.isdecimal() and self.position.isdecimal()
        return both and int(position) < int(self.position)

    # -- lists and events

    def replace(self, items: Generator[Any, None, Any]) -> None:
        """Take a whole list. Raises SourceError where it is none; then nothing has changed."""
        claims: list[Node] = []
        unusable: set[str] = set()
        own = None
        while True:
            try:
                thing = next(items)
                name = name_of(thing)
            except StopIteration as end:
                position = find_position(end.value)
                break
            except UnusableObject as error:
                self._refuse("a NodeNetwork", str(error))
                continue
            if name == self._me:
                own = thing
            elif claim := self._parse(name, thing):
                claims.append(claim)
            else:
                unusable.add(name)
        if not position:
            raise SourceError("the Kubernetes API's list has no resourceVersion")
        with self._mutex:
            self._check.replace(claims, unusable)
            self._is_whole, self.position = True, position
            self._emit()
        self._on_own(own, True)

    def events(self, lines: Iterable[bytes | None]) -> int:
        """Take lines of a watch; the number of changes. Raises Expired, WatchFailed."""
        changes = 0
        with self._mutex:
            try:
                for line in lines:
                    changes += self._event(line)
            finally:
                self._emit()
        return changes

    def _event(self, line: bytes | None) -> bool:
        try:
            kind, thing = _open_event(read_json(line))
            name = name_of(thing) if kind in _CHANGES else ""
        except UnusableObject as error:
            self._refuse("an event", str(error))
            return False
        if kind == "ERROR":
            raise failure_of(thing)
        self.position = find_position(thing) or self.position
        if kind in _CHANGES:
            self._change(name, None if kind == "DELETED" else thing)
        return kind in _CHANGES

    def _change(self, name: str, thing: object) -> None:
        if name == self._me:
            self._on_own(thing, False)
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

    def settle(self, claim: Node, record: NodeRecord | None) -> None:
        """The Node of a waiting claim was read; None: there is none."""
        with self._mutex:
            why = self._check.settle(claim, record)
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
        if not self._uid:
            return ""
        saved = _Saved(self.position, self._uid, self._check.unsettled, self._check.former)
        return saved.render()

    def _refuse(self, what: str, why: str) -> None:
        self._feed.refused()
        if (what, why) in self._logged:
            return
        if len(self._logged) >= _LOGGED_MAX:
            self._logged.clear()
        self._logged.add((what, why))
        self._log.warning(f"{what} is left out, or part of it: {why}")


def _open_event(event: object) -> tuple[str, Any]:
    """Type and object. Raises UnusableObject."""
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(event, dict) or not isinstance(kind, str) or kind not in _KINDS:
        raise UnusableObject("it is none")
    return kind, event.get("object")


@dataclass(frozen=True, slots=True)
class _Saved:
    """What a daemon leaves to the next one beside the nodes, kept as LastKnown.position.

    position: a resourceVersion, empty = a list is needed. uid: of the own Node.
    unsettled, former: see ClaimCheck.
    """

    position: str
    uid: str
    unsettled: tuple[Node, ...] = ()
    former: tuple[Node, ...] = ()

    def render(self) -> str:
        """One line: position or -, uid, and JSON of the nodes where there are any."""
        is_kept = self.position and len(self.unsettled) <= UNSETTLED_MAX
        words = [self.position if is_kept else "-", self.uid]
        nodes = {
            "unsettled": self.unsettled if is_kept else (),
            "former": self.former[-FORMER_MAX:],
        }
        if any(nodes.values()):
            words.append(json.dumps({key: [*map(show_node, of)] for key, of in nodes.items()}))
        return " ".join(words)


def _parse_saved(text: str) -> _Saved | None:
    """What `_Saved.render` made; None where it is something else."""
    position, _, rest = text.partition(" ")
    uid, _, nodes = rest.partition(" ")
    if not is_position(position):
        return None
    try:
        root = json.loads(nodes) if nodes else {"unsettled": [], "former": []}
        unsettled, former = (tuple(map(parse_node, root[key])) for key in ("unsettled", "former"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    position = "" if position == "-" else position
    return _Saved(position, uid, unsettled[:UNSETTLED_MAX], former[:FORMER_MAX])
