"""What a daemon makes of the objects that it hears of: the roster, the position, the snapshots."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import Any

from daemon.log import Log
from daemon.model import Node
from daemon.sources.cache import LastKnown
from daemon.sources.kubernetes.claim_check import Roster
from daemon.sources.kubernetes.events import (
    Restored,
    failure_of,
    find_position,
    position_of,
    read_json,
)
from daemon.sources.kubernetes.objects import (
    Authority,
    Unusable,
    name_of,
    parse_claim,
)
from daemon.sources.kubernetes.pins import Pin, Pins, read_pin
from daemon.sources.kubernetes.saved import Saved, parse_saved, render_saved
from daemon.sources.remote import Feed
from kernel.model import IPNetwork

_TOLD_MAX = 1000
_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})
_KINDS = _CHANGES | {"BOOKMARK", "ERROR"}


@dataclass(frozen=True, slots=True)
class Own:
    """What is heard of this node's own object. thing: None = there is none.

    is_readable: whether that much is known; else something may be there. is_listed: by a list, and
    not as the next that happened to it. is_restored: the API counts from before what it had said.
    """

    thing: Any
    is_readable: bool = True
    is_listed: bool = False
    is_restored: bool = False

    def after(self, old: Own) -> Own:
        """This one, with what follows from the one before it."""
        listed, restored = old.is_listed or self.is_listed, old.is_restored or self.is_restored
        return replace(self, is_listed=listed, is_restored=restored)


class Picture:
    """The cluster as this node sees it; for any thread.

    on_own: told whenever this node's own object was heard of.
    """

    def __init__(
        self,
        me: str,
        ranges: tuple[IPNetwork, ...],
        feed: Feed,
        log: Log,
        on_own: Callable[[Own], None],
    ) -> None:
        self.position = ""
        """Where a watch goes on; empty = nowhere, a list is needed."""
        self._me, self._ranges, self._feed, self._log = me, ranges, feed, log
        self._on_own = on_own
        self._mutex = threading.RLock()
        self._roster = Roster(me)
        self._pins = Pins()
        self._whole = False
        self._reached = ""
        self._is_restored = False
        self._fed = -1
        self._told: set[tuple[str, str]] = set()
        self._uid = ""
        self._is_published = False

    # -- what is known

    @property
    def questions(self) -> tuple[str, ...]:
        """The names of the Nodes to read; see Roster."""
        with self._mutex:
            return self._roster.questions

    def question(self, name: str) -> int:
        """Which question is asked about a node; 0 = none."""
        with self._mutex:
            return self._roster.question(name)

    @property
    def size(self) -> int:
        """How many nodes there are, about."""
        return len(self._roster)

    def resume(self, known: LastKnown) -> str:
        """Begin with what an earlier daemon knew; the position, if the Node is the same one."""
        with self._mutex:
            saved = parse_saved(known.position)
            own = self._roster.get(self._me)
            if saved is None or not self._uid or saved.uid != self._uid or not own:
                return ""
            others = [node for node in known.nodes if node.name != self._me]
            position = saved.position
            self._pins = Pins(known.notes)
            if not position:
                self._roster.remember((*saved.left, *others))
                return ""
            self._roster = Roster(self._me, others)
            self._pins.keep({node.name for node in others})
            self._roster.put_own(own)
            self._roster.remember(saved.left)
            for claim in saved.open:
                self._roster.reopen(claim)
            self._whole, self.position = True, position
            self._emit()
            return position

    def compare(self, listed: object) -> None:
        """Raise Restored where a list of now is of before the position.

        A watch from there would be taken, and never say anything.
        """
        newest = position_of(listed)
        with self._mutex:
            if _is_before(newest, self.position):
                self._is_restored = True
                raise Restored

    # -- what is heard

    def replace(self, items: Generator[bytes | None, None, Any]) -> None:
        """A whole list. Raises SourceError where it is none; then nothing has changed."""
        claims: dict[str, Node] = {}
        pins: dict[str, Pin | None] = {}
        others: set[str] = set()
        own, unreadable = Own(None), 0
        while True:
            try:
                item = next(items)
            except StopIteration as end:
                position = position_of(end.value)
                break
            try:
                thing = read_json(item)
                name = name_of(thing)
            except Unusable as error:
                unreadable += 1
                self._refuse("a NodeNetwork", str(error))
                if own.thing is None and self._may_be_own(item):
                    own = Own(None, is_readable=False)
                continue
            if name == self._me:
                own = Own(thing)
                continue
            claim, pins[name] = self._claim(name, thing), read_pin(thing)
            if claim is None:
                others.add(name)
            else:
                claims[name] = claim
        with self._mutex:
            # Whoever is behind what cannot be read is not gone.
            kept = (n.name for n in self._roster.nodes) if unreadable else ()
            fresh = [claim for claim in claims.values() if not self._roster.knows(claim.name)]
            restored = self._is_restored or _is_before(position, self._reached)
            self._pins.compare({} if restored else pins)  # those are of a time that never was
            self._roster.replace(claims.values(), others | (set(kept) - claims.keys()))
            # There are never more of them than of nodes.
            self._pins.keep({node.name for node in self._roster.nodes})
            for claim in fresh:
                self._meet(claim, pins[claim.name])
            self._whole, self.position, self._is_restored = True, position, False
            self._emit()
        self._on_own(replace(own, is_listed=True, is_restored=restored))

    def events(self, lines: Iterable[bytes | None]) -> int:
        """Lines of a watch; how many changes they told. Raises Expired, WatchFailed."""
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
            event = read_json(line)
            kind, thing = _open_event(event)
            if kind in _CHANGES:
                name = name_of(thing)
        except Unusable as error:
            self._lose(line, str(error))
            return False
        if kind == "ERROR":
            raise failure_of(thing)
        self.position = find_position(thing) or self.position
        if kind in _CHANGES:
            self._change(kind, name, thing)
        return kind in _CHANGES

    def _lose(self, line: bytes | None, why: str) -> None:
        """Whose it was is not known, nor what token: it may be everybody's."""
        self._refuse("an event", why)
        if len(self._pins):
            self._log.info("all Nodes are asked from now on: an event cannot be read")
            self._pins.clear()
        if self._may_be_own(line):
            self._on_own(Own(None, is_readable=False))

    def _may_be_own(self, data: bytes | None) -> bool:
        return data is None or f'"{self._me}"'.encode() in data

    def _change(self, kind: str, name: str, thing: object) -> None:
        gone = kind == "DELETED"
        if name == self._me:
            self._on_own(Own(None if gone else thing))
        elif gone:
            self._roster.drop(name)
            self._pins.drop(name)
        else:
            self._take(name, thing)

    def _take(self, name: str, thing: object) -> None:
        """Somebody else's object, as a watch tells it."""
        claim, pin, known = self._claim(name, thing), read_pin(thing), self._roster.knows(name)
        had_pin = name in self._pins
        vouched = known and self._pins.hear(name, pin)
        if had_pin and name not in self._pins:
            why = "not the node's next token, or something was missed"
            self._log.info(f"NodeNetwork {name}: its Node is asked from now on: {why}")
        if claim is None:
            self._roster.put_unusable(name)
            return
        self._roster.put(claim, vouched=vouched)
        if not known:
            self._meet(claim, pin)

    def _meet(self, claim: Node, pin: Pin | None) -> None:
        """Somebody of whom nothing was known; who has to be asked about gets no pin, ever."""
        if self._roster.get(claim.name) == claim:
            self._pins.meet(claim.name, pin)

    def _claim(self, name: str, thing: object) -> Node | None:
        try:
            claim = parse_claim(thing, self._ranges)
        except Unusable as error:
            self._refuse(f"NodeNetwork {name}", str(error))
            return None
        for why in claim.left_out:
            self._refuse(f"NodeNetwork {name}", why)
        return self._feed.same(claim.node)

    # -- what is found out

    def put_own(self, authority: Authority) -> None:
        """What this node's Node says."""
        with self._mutex:
            self._uid = authority.uid
            self._roster.put_own(authority.node)
            self._emit()

    def set_published(self, whether: bool) -> None:
        """Whether this node's object says what it should; else no other daemon may go on."""
        with self._mutex:
            if whether != self._is_published:
                self._is_published = whether
                self._mark()

    def rule(self, name: str, authority: Authority | None, question: int) -> None:
        """What somebody else's Node says, to that question; None: there is none."""
        with self._mutex:
            if not question or question != self._roster.question(name):
                return  # it proved itself while its Node was being read, which may be older
            why = self._roster.rule(name, authority)
            if why:
                self._pins.drop(name)
                self._refuse(f"NodeNetwork {name}", f"is not believed: {why}")
            self._emit()

    def ask_again(self) -> None:
        """Have the Nodes looked at anew that did not bear out what was claimed for them."""
        with self._mutex:
            for node in self._roster.denied:
                self._roster.ask_again(node.name)

    # -- what is told

    def _emit(self) -> None:
        self._reached = self.position or self._reached
        if self._whole and self._fed != self._roster.revision:
            self._fed = self._roster.revision
            nodes, notes = self._roster.nodes, self._pins.copy()
            self._feed.snapshot(nodes, self._ranges, self._resumable(), notes)
        elif self._whole:
            self._mark()

    def _mark(self) -> None:
        self._feed.mark(self._resumable(), self._pins.copy())

    def _resumable(self) -> str:
        """Where the next daemon can go on, and what it has to ask about."""
        if not self._uid:
            return ""
        position = self.position if self._is_published else ""
        return render_saved(Saved(position, self._uid, self._roster.open, self._roster.left))

    def _refuse(self, what: str, why: str) -> None:
        self._feed.refused()
        if (what, why) in self._told:
            return
        if len(self._told) >= _TOLD_MAX:
            self._told.clear()
        self._told.add((what, why))
        self._log.warning(f"{what} is left out, or part of it: {why}")


def _is_before(one: str, other: str) -> bool:
    return (one + other).isdecimal() and int(one or 0) < int(other or 0)


def _open_event(event: object) -> tuple[str, Any]:
    """Type and object. Raises Unusable."""
    kind = event.get("type") if isinstance(event, dict) else None
    if not isinstance(event, dict) or not isinstance(kind, str) or kind not in _KINDS:
        raise Unusable("it is none")
    return kind, event.get("object")
