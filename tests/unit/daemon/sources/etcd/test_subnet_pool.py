"""Subnets of a range: chosen free of all that is taken, until nothing is free."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.sources.etcd.subnet_pool import (
    Candidates,
    Pool,
    PoolExhausted,
    SubnetLost,
    choose_subnets,
    make_pool,
)
from kernel.model import IPNetwork


def nets(text: str) -> tuple[IPNetwork, ...]:
    return tuple(map(ip_network, text.split()))


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Small ones, of one to three ranges that may touch or repeat each other."""
    version = draw(st.sampled_from([4, 6]))
    base, bits = {4: ("10.0.0.0", 32), 6: ("fd00::", 128)}[version]
    length = draw(st.integers(bits - 12, bits - 4))
    ranges = []
    for _ in range(draw(st.integers(1, 3))):
        size = draw(st.integers(0, 4))
        start = draw(st.integers(0, 15)) << (bits - length + 4)
        address = int(ip_address(base)) + start
        ranges.append(ip_network((address, length - size), strict=False))
    return make_pool(ranges, length)


@st.composite
def networks(draw: st.DrawFn, pool: Pool) -> IPNetwork:
    """Something in or around a pool: larger, smaller, a single address, elsewhere."""
    home = draw(st.sampled_from(pool.ranges))
    bits = home.max_prefixlen
    offset = draw(st.integers(-256, home.num_addresses + 255))
    length = draw(st.integers(pool.length - 5, bits))
    address = min(max(int(home.network_address) + offset, 0), 2**bits - 1)
    return ip_network((address.to_bytes(bits // 8, "big"), length), strict=False)


def subnets_of(pool: Pool) -> Iterator[IPNetwork]:
    """The naive way: all of them."""
    return chain.from_iterable(r.subnets(new_prefix=pool.length) for r in pool.ranges)


def free_in(pool: Pool, taken: list[IPNetwork]) -> list[IPNetwork]:
    return [s for s in subnets_of(pool) if not any(t.overlaps(s) for t in taken)]


@given(st.data())
def test_what_can_be_chosen_is_what_is_free(data: st.DataObject) -> None:
    pool = data.draw(pools())
    taken = data.draw(st.lists(networks(pool), max_size=8))
    free = free_in(pool, taken)
    counts: list[int] = []

    def count(size: int) -> int:
        counts.append(size)
        return 0

    first = pool.choose(taken, count)
    assert first == (free[0] if free else None)
    assert counts == ([len(free)] if free else [])
    picks = iter(range(len(free)))
    assert [pool.choose(taken, lambda _: next(picks)) for _ in free] == free


@given(st.data())
def test_the_pool_is_given_out_whole_and_never_twice(data: st.DataObject) -> None:
    pool = data.draw(pools())
    taken: list[IPNetwork] = []
    while (subnet := pool.choose(taken, lambda n: data.draw(st.integers(0, n - 1)))) is not None:
        assert subnet in pool
        assert not any(subnet.overlaps(t) for t in taken)
        taken.append(subnet)
        if len(taken) > 24:  # the rest goes in order
            taken += free_in(pool, taken)
    assert sorted(taken) == sorted(subnets_of(pool))
    assert len(taken) == pool.size


def test_a_huge_range_costs_nothing() -> None:
    pool = make_pool(nets("fd00::/8"), 126)
    assert pool.size == 2**118
    assert pool.choose(nets("fd00::/9 10.0.0.0/8"), lambda n: n - 1) == ip_network(
        "fdff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126"
    )


def test_a_range_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10.0.0.0/25 has no room for a subnet of length 24"):
        make_pool(nets("10.0.0.0/25"), 24)


POOLS = (make_pool(nets("10.244.0.0/22"), 24), make_pool(nets("fd00:10:244::/62"), 64))


def choose(candidates: Candidates, holders: dict[str, str], addresses: str = "") -> list[str]:
    held = {ip_network(subnet): name for subnet, name in holders.items()}
    found = choose_subnets(candidates, held, map(ip_address, addresses.split()), lambda _: 0)
    return list(map(str, found))


def test_a_new_node_gets_one_of_each_family() -> None:
    assert choose(Candidates("a", POOLS), {}) == ["10.244.0.0/24", "fd00:10:244::/64"]


def test_nodes_addresses_are_not_given_to_pods() -> None:
    found = choose(Candidates("a", POOLS), {}, "10.244.0.1 10.244.2.1 fd00:10:244::1")
    assert found == ["10.244.1.0/24", "fd00:10:244:1::/64"]


def test_what_a_node_had_it_gets_again_if_it_is_free() -> None:
    had = Candidates("a", POOLS[:1], preferred=nets("10.244.3.0/24"))
    assert choose(had, {}) == ["10.244.3.0/24"]
    assert choose(had, {"10.244.3.0/24": "a"}) == ["10.244.3.0/24"]
    assert choose(had, {"10.244.3.0/24": "b"}) == ["10.244.0.0/24"]
    assert choose(had, {"10.244.3.0/25": "b"}) == ["10.244.0.0/24"]
    assert choose(had, {"10.244.2.0/24": "a"}) == ["10.244.2.0/24"]  # put down by hand


def test_what_pods_live_in_is_had_or_nothing() -> None:
    kept = Candidates("a", POOLS[:1], kept=nets("10.244.3.0/24"))
    assert choose(kept, {"10.244.2.0/24": "a"}) == ["10.244.3.0/24"]
    for rival in ("10.244.3.0/24", "10.244.2.0/23", "10.244.3.128/25"):
        with pytest.raises(SubnetLost, match=r"10.244.3.0/24 of this node was leased to b"):
            choose(kept, {rival: "b"})
    # Another range by now: the operator moved the cluster.
    assert choose(Candidates("a", POOLS[:1], kept=nets("10.9.3.0/24")), {}) == ["10.244.0.0/24"]


def test_exhausted_says_who_holds_what() -> None:
    holders = {f"10.244.{n}.0/24": f"node-{n}" for n in range(4)} | {"10.9.0.0/24": "elsewhere"}
    with pytest.raises(PoolExhausted) as caught:
        choose(Candidates("a", POOLS[:1]), holders)
    assert str(caught.value) == (
        "no /24 is free in 10.244.0.0/22: 4 subnets are held: 10.244.0.0/24 node-0,"
        " 10.244.1.0/24 node-1, 10.244.2.0/24 node-2, 10.244.3.0/24 node-3"
    )


def test_exhausted_of_many_names_some() -> None:
    pool = make_pool(nets("10.0.0.0/16"), 24)
    holders = {f"10.0.{n}.0/24": f"node-{n}" for n in range(256)}
    with pytest.raises(PoolExhausted, match=r"10.0.15.0/24 node-15 and 240 more"):
        choose(Candidates("a", (pool,)), holders)
