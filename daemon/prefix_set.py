"""Prefixes as blocks of addresses: what overlaps what, found without a search of all."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from itertools import chain
from typing import NamedTuple

from kernel.model import IPAddress, IPNetwork

_BITS = {4: 32, 6: 128}
_FEW = 64
"""Blocks that are inserted one by one; for more, sorting all again is faster."""


class Block(NamedTuple):
    """The addresses `first` to `last`, both included, of one family."""

    version: int
    first: int
    last: int

    @property
    def address(self) -> IPAddress:
        """The first address."""
        return _address(self.version, self.first)

    @property
    def ends(self) -> tuple[IPAddress, IPAddress]:
        """The first address and the last."""
        return self.address, _address(self.version, self.last)

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
    """The same addresses in as few blocks as possible, in order."""
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
    """Blocks of prefixes, of which any two are disjoint or one is inside the other."""

    __slots__ = ("_blocks", "_counts", "_fresh", "_sizes", "_sorted")

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._blocks: set[Block] = set()
        self._sorted: list[Block] = []
        self._fresh: list[Block] = []
        # The sizes of members, by family and in order: containing blocks are looked up by these.
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
        """Add a block; one that is a member already changes nothing."""
        if block in self._blocks:
            return
        self._blocks.add(block)
        self._fresh.append(block)
        version, size = block.version, block.last - block.first
        self._counts[version, size] += 1
        if self._counts[version, size] == 1:
            insort(self._sizes[version], size)

    def discard(self, block: Block) -> None:
        """Remove a block, if it is a member."""
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
                # A plain tuple equals the block, and is made faster.
                if (version, start, start + size) in self._blocks:
                    yield Block(version, start, start + size)

    def inside(self, block: Block) -> list[Block]:
        """The members inside the block, itself among them, in order."""
        ordered, (version, _first, last) = self._ordered(), block
        found = []
        for place in range(bisect_left(ordered, (version, block.first, 0)), len(ordered)):
            member = ordered[place]
            if member.first > last or member.version != version:
                break
            # One that begins where the block does may reach beyond it.
            if member.last <= last:
                found.append(member)
        return found

    def overlapping(self, block: Block) -> Block | None:
        """A member that shares addresses with the block; None where none does."""
        return next(chain(self.containing(block), self.inside(block)), None)

    def is_disjoint(self, block: Block) -> bool:
        """Whether no member but itself shares addresses with the block."""
        return all(other == block for other in chain(self.containing(block), self.inside(block)))

    def _ordered(self) -> list[Block]:
        if len(self._fresh) > _FEW:
            self._sorted = sorted(self._blocks)
        else:
            for block in self._fresh:
                insort(self._sorted, block)
        self._fresh.clear()
        return self._sorted
