"""How much of each network's addresses is in use."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ipam.allocator import allocate
from ipam.config import IpamConf
from ipam.store import Store
from ipam.usage import Usage, _union, read_usage
from tests.unit.ipam.helpers import NETWORK, HandClock, conf, open_at, owner


def usage(store: Store) -> dict[tuple[str, int], Usage]:
    with store.read() as tx:
        return {(u.network, u.version): u for u in read_usage(tx)}


def take(store: Store, settings: IpamConf, name: object, network: str = NETWORK) -> None:
    with store.transaction() as tx:
        allocate(tx, settings, owner(name, network))


def give_back(store: Store, name: object, network: str = NETWORK) -> None:
    with store.transaction() as tx:
        tx.release(owner(name, network))


def test_an_empty_store_has_no_networks(store: Store) -> None:
    assert usage(store) == {}


def test_every_network_and_family_by_itself(store: Store) -> None:
    for number in range(3):
        take(store, conf("10.0.0.0/24", "fd00::/64"), number)
    take(store, conf("10.9.0.0/29", network="other"), 1, "other")
    assert usage(store) == {
        (NETWORK, 4): Usage(NETWORK, 4, allocated=3, size=253),
        (NETWORK, 6): Usage(NETWORK, 6, allocated=3, size=2**64 - 2),
        ("other", 4): Usage("other", 4, allocated=1, size=5),
    }


def test_freed_addresses_rest_and_the_oldest_tells_its_age(store: Store, clock: HandClock) -> None:
    settings = conf("10.0.0.0/24", rest=300)
    for number in range(4):
        take(store, settings, number)
    give_back(store, 2)
    clock.advance(50)
    give_back(store, 0)
    clock.advance(10)
    found = usage(store)[NETWORK, 4]
    assert (found.allocated, found.resting, found.oldest, found.size) == (2, 2, 60.0, 253)


def test_what_an_earlier_boot_held_rests_for_nobody_knows_how_long(
    data_dir: Path, clock: HandClock
) -> None:
    with open_at(data_dir, clock) as store:
        take(store, conf("10.0.0.0/24"), 1)
    clock.uptime = 5.0
    with open_at(data_dir, clock, boot_id="boot-2") as store:
        found = usage(store)[NETWORK, 4]
    assert (found.allocated, found.resting, found.oldest) == (0, 1, None)


def test_ranges_that_overlap_count_once(store: Store) -> None:
    for number, subnet in enumerate(("10.0.0.0/24", "10.0.0.0/25", "10.0.2.0/30")):
        take(store, conf(subnet), number)
    # The gateways are 10.0.0.1, of two of the ranges, and 10.0.2.1.
    assert usage(store)[NETWORK, 4].size == 253 + 1


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)).map(sorted)))
def test_a_union_has_as_many_as_its_members(spans: list[list[int]]) -> None:
    pairs = [(first, last) for first, last in spans]
    assert _union(pairs) == len({n for first, last in pairs for n in range(first, last + 1)})
