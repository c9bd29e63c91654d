"""Prefixes as ranges of whole numbers: what overlaps what, found without a search of all."""

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


class Block(NamedTuple):
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


def block_of(prefix: IPNetwork) -> Block:
    """A prefix as a block."""
    first = int(prefix.network_address)
    host_bits = prefix.max_prefixlen - prefix.prefixlen
    return Block(prefix.version, first, first | (1 << host_bits) - 1)


def host_block(address: IPAddress) -> Block:
    """One address as a block."""
    number = int(address)
    return Block(address.version, number, number)


def merge(blocks: Iterable[Block]) -> tuple[Block, ...]:
    """The same addresses in as few blocks as can be, in order."""
    merged: list[Block] = []
    version, first, last = 0, 0, -1
    for family, begin, end in sorted(blocks):
        if family == version and begin <= last + 1:
            if end > last:
                last = end
            continue
        if version:
            merged.append(Block(version, first, last))
        version, first, last = family, begin, end
    if version:
        merged.append(Block(version, first, last))
    return tuple(merged)


class PrefixSet:
    """Spans of prefixes, of which any two are apart or one within the other."""

    __slots__ = ("_blocks", "_counts", "_fresh", "_sizes", "_sorted")

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._blocks: set[Block] = set()
        self._sorted: list[Block] = []
        self._fresh: list[Block] = []
        # Which sizes there are, by family and in order: containing blocks are looked up by these.
        self._sizes: dict[int, list[int]] = {4: [], 6: []}
        self._counts: Counter[tuple[int, int]] = Counter()
        for block in blocks:
            self.add(block)

    def __contains__(self, block: Block) -> bool:
        return block in self._blocks

    def __iter__(self) -> Iterator[Block]:
        return iter(self._ordered())

    def __len__(self) -> int:
        return len(self._blocks)

    def add(self, block: Block) -> None:
        """Take a block in; one that is there already changes nothing."""
        if block in self._blocks:
            return
        self._blocks.add(block)
        self._fresh.append(block)
        version, size = block.version, block.last - block.first
        self._counts[version, size] += 1
        if self._counts[version, size] == 1:
            insort(self._sizes[version], size)

    def discard(self, block: Block) -> None:
        """Take a block out, if it is there."""
        if block not in self._blocks:
            return
        ordered = self._ordered()
        self._blocks.remove(block)
        del ordered[bisect_left(ordered, block)]
        version, size = block.version, block.last - block.first
        self._counts[version, size] -= 1
        if not self._counts[version, size]:
            del self._counts[version, size]
            self._sizes[version].remove(size)

    def containing(self, block: Block) -> Iterator[Block]:
        """The members that contain the block, itself among them; the smallest first."""
        version, first, last = block
        own = last - first
        for size in self._sizes[version]:
            if size >= own:
                start = first & ~size
                candidate = Block(version, start, start + size)
                if candidate in self._blocks:
                    yield candidate

    def inside(self, block: Block) -> list[Block]:
        """The members inside the block, itself among them, in order."""
        ordered = self._ordered()
        start = bisect_left(ordered, Block(block.version, block.first, 0))
        end = bisect_left(ordered, Block(block.version, block.last + 1, 0))
        # One that begins where the block does may reach beyond it.
        return [s for s in ordered[start:end] if s.last <= block.last]

    def overlapping(self, block: Block) -> Block | None:
        """A member that shares addresses with the block, None where no one does."""
        for around in self.containing(block):
            return around
        ordered = self._ordered()
        start = bisect_left(ordered, Block(block.version, block.first, 0))
        return self._inside(ordered, start, block)

    def is_disjoint(self, block: Block) -> bool:
        """Whether no member but itself shares addresses with a member."""
        ordered = self._ordered()
        if self._inside(ordered, bisect_left(ordered, block) + 1, block):
            return False
        # A smaller one that begins where the block does comes before it; one that contains it, too.
        place = bisect_left(ordered, Block(block.version, block.first, 0))
        return ordered[place] == block and all(s == block for s in self.containing(block))

    def disjoint(self) -> list[Block]:
        """The members that share addresses with no other, in order."""
        found: list[Block] = []
        version, end, alone = 0, -1, False
        for block in self._ordered():
            if block.version == version and block.first <= end:
                # Within the one before, or the other way round where both begin at one address.
                if alone:
                    found.pop()
                alone, end = False, max(end, block.last)
            else:
                found.append(block)
                version, end, alone = block.version, block.last, True
        return found

    @staticmethod
    def _inside(ordered: list[Block], place: int, block: Block) -> Block | None:
        if place < len(ordered):
            member = ordered[place]
            if member.version == block.version and member.first <= block.last:
                return member
        return None

    def _ordered(self) -> list[Block]:
        if not self._fresh:
            return self._sorted
        if len(self._fresh) > _FEW:
            self._sorted += self._fresh
            self._sorted.sort()
        else:
            for block in self._fresh:
                insort(self._sorted, block)
        self._fresh = []
        return self._sorted
