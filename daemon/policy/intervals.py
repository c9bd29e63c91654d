"""Intervals of addresses and ports, made disjoint: the kernel's interval sets take no others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from kernel.nftables.policy_rules import Box, Ends, Span

T = TypeVar("T", Ends, Span)

STEPS_MAX = 200_000
"""Steps that one filter's ports at addresses may take to be made disjoint: a third of a second."""
BOXES_MAX = 50_000
RANGES_MAX = 50_000
_GATHERED_MAX = 2 * BOXES_MAX
"""Boxes before those that overlap are merged: each takes 200 bytes."""


class TooLarge(Exception):
    """The rules of a filter are more than the kernel should be given."""


def merge(intervals: Iterable[T]) -> frozenset[T]:
    """The same addresses or ports in intervals that neither overlap nor touch."""
    merged: list[T] = []
    for each in sorted(intervals):
        top = merged[-1] if merged else None
        # The first field is the family of addresses, or the protocol of ports.
        if top and top[0] == each[0] and each.first <= top.last + 1:
            merged[-1] = top._replace(last=max(top.last, each.last))
        else:
            merged.append(each)
    return frozenset(merged)


def merge_ranges(ranges: Iterable[Ends]) -> frozenset[Ends]:
    """The same addresses in ranges that do not overlap. Raises TooLarge."""
    merged = merge(ranges)
    if len(merged) > RANGES_MAX:
        raise TooLarge(f"{len(merged)} ranges of addresses, more than {RANGES_MAX}")
    return merged


def add_boxes(boxes: set[Box], more: Iterable[Box]) -> None:
    """Gather boxes. Raises TooLarge before they take much memory: ports multiply with pods."""
    for box in more:
        boxes.add(box)
        if len(boxes) > _GATHERED_MAX:
            raise TooLarge(f"more than {_GATHERED_MAX} pairs of addresses and ports")


class _Edge(NamedTuple):
    """Where a range begins, or the first address after it."""

    address: int
    begins: bool
    ends: Ends


def disjoint_boxes(boxes: Iterable[Box]) -> frozenset[Box]:
    """The same ports at the same addresses, in boxes that do not overlap. Raises TooLarge."""
    spans: dict[Ends, set[Span]] = defaultdict(set)
    for box in boxes:
        spans[box.ends].add(box.span)
    found = frozenset(
        Box(ends, span)
        for version in (4, 6)
        for ends, each in _segments({e: s for e, s in spans.items() if e.version == version})
        for span in each
    )
    if len(found) > BOXES_MAX:
        raise TooLarge(f"{len(found)} pairs of addresses and ports, more than {BOXES_MAX}")
    return found


def _segments(spans: dict[Ends, set[Span]]) -> Iterator[tuple[Ends, frozenset[Span]]]:
    """Ranges that do not overlap, each with the ports of all that contain it."""
    edges = [_Edge(e.first, True, e) for e in spans] + [_Edge(e.last + 1, False, e) for e in spans]
    edges.sort()
    active: Counter[Span] = Counter()
    start, steps = 0, 0
    for edge in edges:
        if active and edge.address > start:
            steps += len(active)
            if steps > STEPS_MAX:
                raise TooLarge("its blocks overlap too often")
            yield Ends(edge.ends.version, start, edge.address - 1), merge(active)
        start = edge.address
        for span in spans[edge.ends]:
            active[span] += 1 if edge.begins else -1
            if not active[span]:
                del active[span]
