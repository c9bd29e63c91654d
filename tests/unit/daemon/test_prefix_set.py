"""Spans against a naive look at every one of them."""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv6Address,
    collapse_addresses,
    ip_network,
    summarize_address_range,
)
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daemon.prefix_set import Block, PrefixSet, block_of, host_block, merge
from kernel.model import IPNetwork

# Few addresses, so that prefixes meet.
prefixes_v4 = st.builds(
    lambda number, bits: ip_network((number << 26, bits), strict=False),
    st.integers(0, 63),
    st.sampled_from((1, 2, 3, 6, 8, 31, 32)),
)
prefixes_v6 = st.builds(
    lambda number, bits: ip_network((number << 122, bits), strict=False),
    st.integers(0, 63),
    st.sampled_from((1, 3, 6, 64, 128)),
)
prefixes: st.SearchStrategy[IPNetwork] = prefixes_v4 | prefixes_v6
some = st.lists(prefixes, max_size=12)


def overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def inside(one: IPNetwork, other: IPNetwork) -> bool:
    return overlap(one, other) and one.prefixlen >= other.prefixlen


@given(some, some, prefixes)
def test_a_set_answers_as_a_look_at_every_member(
    added: list[IPNetwork], removed: list[IPNetwork], prefix: IPNetwork
) -> None:
    blocks = PrefixSet(map(block_of, added))
    assert len(blocks) == len(set(added))  # sorted once before the removals
    for gone in removed:
        blocks.discard(block_of(gone))
    left = set(added) - set(removed)
    block = block_of(prefix)
    assert list(blocks) == sorted(map(block_of, left))
    assert (block in blocks) == (prefix in left)
    wider = sorted((p for p in left if inside(prefix, p)), key=lambda p: -p.prefixlen)
    assert list(blocks.containing(block)) == [block_of(p) for p in wider]
    assert blocks.inside(block) == sorted(block_of(p) for p in left if inside(p, prefix))
    rival = blocks.overlapping(block)
    rivals = {block_of(p) for p in left if overlap(p, prefix)}
    assert rival in rivals if rivals else rival is None
    for p in left:
        alone = not any(overlap(p, q) for q in left if q != p)
        assert blocks.is_disjoint(block_of(p)) == alone


@given(st.lists(prefixes, min_size=65, max_size=90))
def test_many_at_once_are_in_order_too(added: list[IPNetwork]) -> None:
    assert list(PrefixSet(map(block_of, added))) == sorted({block_of(p) for p in added})


def networks(blocks: tuple[Block, ...]) -> list[Any]:
    """The blocks as the fewest prefixes."""
    kinds: dict[int, Any] = {4: IPv4Address, 6: IPv6Address}
    pairs = ((kinds[s.version](s.first), kinds[s.version](s.last)) for s in blocks)
    return [prefix for first, last in pairs for prefix in summarize_address_range(first, last)]


@given(some)
def test_merged_spans_hold_the_same_addresses_in_as_few(added: list[IPNetwork]) -> None:
    merged = merge(map(block_of, added))
    for version in (4, 6):
        own = [s for s in merged if s.version == version]
        assert all(a.last + 1 < b.first for a, b in pairwise(own))
    expected: list[Any] = []
    for version in (4, 6):
        expected += collapse_addresses(p for p in added if p.version == version)
    assert networks(merged) == expected


@given(prefixes)
def test_a_prefix_reads_as_itself(prefix: IPNetwork) -> None:
    assert str(block_of(prefix)) == str(prefix)


def test_what_is_no_prefix_reads_as_first_and_last() -> None:
    assert str(Block(4, 1, 2)) == "0.0.0.1-0.0.0.2"
    assert str(Block(6, 1, 3)) == "::1-::3"
    assert str(host_block(ip_network("::1").network_address)) == "::1/128"
