"""Prefixes as ranges of whole numbers: what overlaps what, found without a look at the rest."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from typing import NamedTuple

from kernel.model import IPAddress, IPNetwork

_BITS = {4: 32, 6: 128}
# From here on sorting anew is faster than inserting one by one.
_FEW = 64


class Span(NamedTuple):
    """The addresses `first` to `last`, both included, of one family."""

    version: int
    first: int
    last: int

    @property
    def address(self) -> IPAddress:
        """The first address."""
        return _address(self.version, self.first)

    def __str__(self) -> str:
        inner = self.last - self.first
        if inner & (inner + 1) == 0 == self.first & inner:
            bits = _BITS[self.version] - inner.bit_length()
            return f"{_address(self.version, self.first)}/{bits}"
        return f"{_address(self.version, self.first)}-{_address(self.version, self.last)}"


def _address(version: int, number: int) -> IPAddress:
    # Of one family for sure: ip_address(1) alone would be IPv4.
    return ip_address(number.to_bytes(_BITS[version] // 8, "big"))


def span_of(prefix: IPNetwork) -> Span:
    """A prefix as a span."""
    first = int(prefix.network_address)
    return Span(prefix.version, first, first | (1 << (prefix.max_prefixlen - prefix.prefixlen)) - 1)


def host_span(address: IPAddress) -> Span:
    """One address as a span."""
    number = int(address)
    return Span(address.version, number, number)


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same addresses in as few spans as can be, in order."""
    merged: list[Span] = []
    version, first, last = 0, 0, -1
    for family, begin, end in sorted(spans):
        if family == version and begin <= last + 1:
            if end > last:
                last = end
            continue
        if version:
            merged.append(Span(version, first, last))
        version, first, last = family, begin, end
    if version:
        merged.append(Span(version, first, last))
    return tuple(merged)


class SpanSet:
    """Spans of prefixes, of which any two are apart or one within the other."""

    __slots__ = ("_counts", "_fresh", "_sizes", "_sorted", "_spans")

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: set[Span] = set()
        self._sorted: list[Span] = []
        self._fresh: list[Span] = []
        # Which sizes there are, by family and in order: containing spans are looked up by these.
        self._sizes: dict[int, list[int]] = {4: [], 6: []}
        self._counts: Counter[tuple[int, int]] = Counter()
        for span in spans:
            self.add(span)

    def __contains__(self, span: Span) -> bool:
        return span in self._spans

    def __iter__(self) -> Iterator[Span]:
        return iter(self._ordered())

    def __len__(self) -> int:
        return len(self._spans)

    def add(self, span: Span) -> None:
        """Take a span in; one that is there already changes nothing."""
        if span in self._spans:
            return
        self._spans.add(span)
        self._fresh.append(span)
        version, size = span.version, span.last - span.first
        self._counts[version, size] += 1
        if self._counts[version, size] == 1:
            insort(self._sizes[version], size)

    def discard(self, span: Span) -> None:
        """Take a span out, if it is there."""
        if span not in self._spans:
            return
        ordered = self._ordered()
        self._spans.remove(span)
        del ordered[bisect_left(ordered, span)]
        version, size = span.version, span.last - span.first
        self._counts[version, size] -= 1
        if not self._counts[version, size]:
            del self._counts[version, size]
            self._sizes[version].remove(size)

    def around(self, span: Span) -> Iterator[Span]:
        """The members that contain the span, itself among them; the smallest first."""
        version, first, last = span
        own = last - first
        for size in self._sizes[version]:
            if size >= own:
                start = first & ~size
                candidate = Span(version, start, start + size)
                if candidate in self._spans:
                    yield candidate

    def within(self, span: Span) -> list[Span]:
        """The members inside the span, itself among them, in order."""
        ordered = self._ordered()
        start = bisect_left(ordered, Span(span.version, span.first, 0))
        end = bisect_left(ordered, Span(span.version, span.last + 1, 0))
        # One that begins where the span does may reach beyond it.
        return [s for s in ordered[start:end] if s.last <= span.last]

    def rival(self, span: Span) -> Span | None:
        """A member that shares addresses with the span, None where no one does."""
        for around in self.around(span):
            return around
        ordered = self._ordered()
        start = bisect_left(ordered, Span(span.version, span.first, 0))
        return self._inside(ordered, start, span)

    def is_alone(self, span: Span) -> bool:
        """Whether no member but itself shares addresses with a member."""
        ordered = self._ordered()
        if self._inside(ordered, bisect_left(ordered, span) + 1, span):
            return False
        # A smaller one that begins where the span does comes before it; one that contains it, too.
        place = bisect_left(ordered, Span(span.version, span.first, 0))
        return ordered[place] == span and all(s == span for s in self.around(span))

    def loners(self) -> list[Span]:
        """The members that share addresses with no other, in order."""
        found: list[Span] = []
        version, end, alone = 0, -1, False
        for span in self._ordered():
            if span.version == version and span.first <= end:
                # Within the one before, or the other way round where both begin at one address.
                if alone:
                    found.pop()
                alone, end = False, max(end, span.last)
            else:
                found.append(span)
                version, end, alone = span.version, span.last, True
        return found

    @staticmethod
    def _inside(ordered: list[Span], place: int, span: Span) -> Span | None:
        if place < len(ordered):
            member = ordered[place]
            if member.version == span.version and member.first <= span.last:
                return member
        return None

    def _ordered(self) -> list[Span]:
        if not self._fresh:
            return self._sorted
        if len(self._fresh) > _FEW:
            self._sorted += self._fresh
            self._sorted.sort()
        else:
            for span in self._fresh:
                insort(self._sorted, span)
        self._fresh = []
        return self._sorted
