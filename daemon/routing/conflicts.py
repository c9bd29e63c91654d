"""Who gets what several nodes claim: prefixes that overlap, addresses that two nodes have.

First this node's own claims, then whoever has it already, then the first by name. A loser loses
the colliding prefix alone. A change is settled within what it overlaps; the rest is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from daemon.prefix_set import Span, SpanSet

# From here on one pass over all spans is faster than a look around each.
_FEW = 64


@dataclass(frozen=True, slots=True)
class Claim:
    """A node's claim of a span."""

    node: str
    span: Span


class Claims:
    """All claims of one kind, and who holds what.

    me: the name of this node. holders: who has what already, before anything is claimed.
    """

    def __init__(self, me: str, holders: Mapping[Span, str] | None = None) -> None:
        self._me = me
        self._by_node: dict[str, tuple[Span, ...]] = {}
        self._by_span: dict[Span, set[str]] = {}
        self._spans = SpanSet()
        self._holders: dict[Span, str] = dict(holders or {})
        self._losses: dict[Claim, Claim] = {}
        self._unsettled: set[Span] = set()
        self._settled_once = False
        self._held: tuple[Span, ...] | None = None

    def put(self, node: str, spans: Iterable[Span]) -> None:
        """Replace what a node claims; nothing at all takes the node out."""
        fresh, old = tuple(dict.fromkeys(spans)), self._by_node.get(node, ())
        if fresh == old:
            return
        self._held = None
        if fresh:
            self._by_node[node] = fresh
        else:
            del self._by_node[node]
        kept = set(old).intersection(fresh) if old and fresh else ()
        for span in old:
            if span not in kept:
                self._remove(node, span)
        for span in fresh:
            if span not in kept:
                self._insert(node, span)

    def _insert(self, node: str, span: Span) -> None:
        names = self._by_span.get(span)
        if names is None:
            self._by_span[span] = {node}
            self._spans.add(span)
        else:
            names.add(node)
        self._unsettled.add(span)

    def _remove(self, node: str, span: Span) -> None:
        names = self._by_span[span]
        names.remove(node)
        if not names:
            del self._by_span[span]
            self._spans.discard(span)
        self._losses.pop(Claim(node, span), None)
        self._unsettled.add(span)

    def settle(self) -> set[str]:
        """Decide what changed; the nodes that got or lost something, or lost it to another."""
        if self._unsettled or not self._settled_once:
            self._held = None
        changed: set[str] = self._settle_undisputed() if len(self._unsettled) > _FEW else set()
        while self._unsettled:
            changed |= self._settle_around(self._unsettled.pop())
        if not self._settled_once:
            # Whoever held a span at the start and claims it no longer does not come back to it.
            held = self._holders.items()
            self._holders = {s: n for s, n in held if n in self._by_span.get(s, ())}
            self._settled_once = True
        return changed

    def _settle_undisputed(self) -> set[str]:
        """The same for whatever shares addresses with nothing else: almost all, as a rule."""
        changed: set[str] = set()
        for span in self._unsettled.intersection(self._spans.loners()):
            names = self._by_span[span]
            if len(names) == 1:
                self._unsettled.remove(span)
                (name,) = names
                if self._losses or self._holders.get(span) != name:
                    changed |= self._give(Claim(name, span))
        return changed

    def _settle_around(self, span: Span) -> set[str]:
        names = self._by_span.get(span, ())
        if len(names) == 1 and self._spans.is_alone(span):
            (name,) = names
            return self._give(Claim(name, span))
        *_, widest = (span, *self._spans.around(span))
        members = self._spans.within(widest)
        self._unsettled.difference_update(members)
        claims = [Claim(name, s) for s in members for name in self._by_span[s]]
        changed = self._assign(*self._decide(claims), claims)
        if span not in self._by_span:
            self._holders.pop(span, None)
        return changed

    def _give(self, claim: Claim) -> set[str]:
        """Let a claim have its span, which nobody disputes; whom it changes anything for."""
        lost = self._losses.pop(claim, None) if self._losses else None
        held = self._holders.get(claim.span) == claim.node
        self._holders[claim.span] = claim.node
        return set() if held and lost is None else {claim.node}

    def _decide(self, claims: list[Claim]) -> tuple[dict[Span, str], dict[Claim, Claim]]:
        taken = SpanSet()
        holders: dict[Span, str] = {}
        losers = []
        for claim in sorted(claims, key=self._rank):
            if taken.rival(claim.span) is None:
                taken.add(claim.span)
                holders[claim.span] = claim.node
            else:
                losers.append(claim)
        # Named at the end: it is the same winner then, whichever way the decision came about.
        rivals = ((claim, taken.rival(claim.span)) for claim in losers)
        return holders, {claim: Claim(holders[r], r) for claim, r in rivals if r}

    def _rank(self, claim: Claim) -> tuple[bool, bool, str, Span]:
        if claim.node == self._me:
            return False, False, claim.node, claim.span
        holds = self._holders.get(claim.span) == claim.node
        return True, not holds, claim.node, claim.span

    def _assign(
        self, holders: Mapping[Span, str], losses: Mapping[Claim, Claim], claims: Iterable[Claim]
    ) -> set[str]:
        """Note the decision about these claims; whom it changes anything for."""
        changed = set()
        for claim in claims:
            held = self._holders.get(claim.span) == claim.node
            holds = holders.get(claim.span) == claim.node
            if held != holds or self._losses.get(claim) != losses.get(claim):
                changed.add(claim.node)
            self._losses.pop(claim, None)
        for span in {claim.span for claim in claims}:
            self._holders.pop(span, None)
        self._holders.update(holders)
        self._losses.update(losses)
        return changed

    def holds(self, node: str, span: Span) -> bool:
        """Whether the node has the span, as of the last settlement (or before the first one)."""
        return self._holders.get(span) == node

    def loss(self, node: str, span: Span) -> Claim | None:
        """The claim that a node's claim lost against, None where it did not lose."""
        return self._losses.get(Claim(node, span)) if self._losses else None

    def held(self) -> tuple[Span, ...]:
        """All spans that somebody has, in order; the same object until that may have changed."""
        if self._held is None:
            self._held = tuple(filter(self._holders.__contains__, self._spans))
        return self._held
