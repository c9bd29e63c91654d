"""The allocator, case by case; test_allocator_model.py compares it with a naive one."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from ipam import allocator
from ipam.allocator import Assigned, Space, allocate, free_space
from ipam.config import IpamConf
from ipam.errors import AddressResting, AddressTaken, RangeExhausted
from ipam.store import Owner, Store
from tests.unit.ipam.helpers import NETWORK, HandClock, conf, ip, open_at, owner


def add(store: Store, config: IpamConf, who: Owner) -> list[str]:
    with store.transaction() as tx:
        return [str(assigned.address.ip) for assigned in allocate(tx, config, who)]


def delete(store: Store, who: Owner) -> None:
    with store.transaction() as tx:
        tx.release(who)


def test_one_address_of_each_set_with_prefix_and_gateway(store: Store) -> None:
    with store.transaction() as tx:
        assert allocate(tx, conf("10.0.0.0/24", "fd00::/64"), owner(1)) == (
            Assigned(ip_interface("10.0.0.2/24"), ip("10.0.0.1")),
            Assigned(ip_interface("fd00::2/64"), ip("fd00::1")),
        )


def test_addresses_are_not_reused_before_the_range_is_through(store: Store) -> None:
    got = []
    for number in range(6):
        got += add(store, conf("10.0.0.0/29"), owner(number))
        delete(store, owner(number))
    assert got == ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


def test_freed_addresses_come_back_longest_freed_first(store: Store) -> None:
    config = conf("10.0.0.0/29")
    for number in range(5):
        add(store, config, owner(number))
    for number in (3, 0, 4):
        delete(store, owner(number))
    got = [add(store, config, owner(number)) for number in (10, 11, 12)]
    assert got == [["10.0.0.5"], ["10.0.0.2"], ["10.0.0.6"]]


def test_an_owner_gets_again_what_it_holds(store: Store) -> None:
    before = add(store, conf("10.0.0.0/24"), owner(1))
    grown = conf("10.0.0.0/24", "fd00::/64")
    assert add(store, grown, owner(1)) == [*before, "fd00::2"] == add(store, grown, owner(1))
    with pytest.raises(AddressTaken, match=r"10\.0\.0\.9.* already has 10\.0\.0\.2"):
        add(store, conf("10.0.0.0/24", requested="10.0.0.9"), owner(1))
    assert add(store, conf("10.0.0.0/24", requested="10.0.0.2"), owner(1)) == ["10.0.0.2"]


def test_a_requested_address(store: Store) -> None:
    wish = conf("10.0.0.0/24", "fd00::/64", requested=["fd00::9"])
    assert add(store, wish, owner(1)) == ["10.0.0.2", "fd00::9"]
    with pytest.raises(
        AddressTaken, match=r"fd00::9 is allocated to container container1"
    ) as caught:
        add(store, wish, owner(2))
    assert caught.value.code == 105
    with store.read() as tx:
        assert tx.addresses(owner(2)) == ()
    delete(store, owner(1))
    assert add(store, wish, owner(2)) == ["10.0.0.3", "fd00::9"]


def test_addresses_requested_ahead_are_passed_over(store: Store) -> None:
    for number in (3, 5, 6):
        add(store, conf("10.0.0.0/29", requested=f"10.0.0.{number}"), owner(number))
    delete(store, owner(5))
    got = [add(store, conf("10.0.0.0/29"), owner(n)) for n in (10, 11, 12)]
    assert got == [["10.0.0.2"], ["10.0.0.4"], ["10.0.0.5"]]


def test_all_sets_or_none(store: Store) -> None:
    config = conf("10.0.0.0/24", "fd00::/126")
    add(store, config, owner(1))
    add(store, config, owner(2))
    with store.transaction() as tx:
        with pytest.raises(RangeExhausted):
            allocate(tx, config, owner(3))
        assert tx.addresses(owner(3)) == ()
    assert add(store, conf("10.0.0.0/24"), owner(4)) == ["10.0.0.4"]


def test_exhaustion_says_how_many_who_and_what_to_do(store: Store, clock: HandClock) -> None:
    config = conf([{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/29"}])
    for number in range(6):
        add(store, config, owner(number))
        clock.advance(3700)
    with pytest.raises(RangeExhausted) as caught:
        add(store, config, owner(9))
    error = caught.value
    assert error.code == 100
    assert error.msg == (
        "no address is free in 10.0.0.1-10.0.0.2,10.0.1.1-10.0.1.6 of network podnet:"
        " 6 of 6 are allocated"
    )
    assert error.details.startswith(
        "oldest: 10.0.0.2 to container container0 interface eth0 for 6h 10m; 10.0.1.2 to"
    )
    assert "container4" in error.details
    assert "container5" not in error.details
    assert "podwire-ipam release" in error.details


def test_a_range_of_the_gateway_alone_is_exhausted(store: Store) -> None:
    config = conf([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.1", "rangeEnd": "10.0.0.1"}])
    with pytest.raises(RangeExhausted, match="has no address for pods"):
        add(store, config, owner(1))


def test_gateways_of_every_range_are_left_out(store: Store) -> None:
    config = conf(
        [
            {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.2", "rangeEnd": "10.0.0.4",
             "gateway": "10.0.0.9"},
            {"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.8", "rangeEnd": "10.0.0.10",
             "gateway": "10.0.0.3"},
        ]
    )  # fmt: skip
    got = [add(store, config, owner(n))[0] for n in range(4)]
    assert got == ["10.0.0.2", "10.0.0.4", "10.0.0.8", "10.0.0.10"]
    with pytest.raises(RangeExhausted):
        add(store, config, owner(5))


def test_an_address_that_stops_being_the_gateway_is_not_lost(store: Store) -> None:
    for number in range(5):
        add(store, conf("10.0.0.0/29"), owner(number))
    moved = conf([{"subnet": "10.0.0.0/29", "gateway": "10.0.0.4"}], rest=60)
    assert add(store, moved, owner(9)) == ["10.0.0.1"]
    delete(store, owner(2))
    with pytest.raises(RangeExhausted):
        add(store, moved, owner(10))


def test_rest_is_observed(store: Store, clock: HandClock) -> None:
    config = conf("10.0.0.0/30", rest=60)
    add(store, config, owner(1))
    delete(store, owner(1))
    clock.advance(20.5)
    with pytest.raises(AddressResting) as caught:
        add(store, config, owner(2))
    error = caught.value
    assert error.code == 11
    assert error.msg == "every free address of 10.0.0.1-10.0.0.2 is resting: 1 of 1"
    assert error.details == "the next is free in 40s (restPeriod 60 s)"
    clock.advance(39.5)
    assert add(store, config, owner(2)) == ["10.0.0.2"]


def test_a_requested_address_that_rests(store: Store, clock: HandClock) -> None:
    add(store, conf("10.0.0.0/24"), owner(1))
    delete(store, owner(1))
    wish = conf("10.0.0.0/24", rest=60, requested="10.0.0.2")
    with pytest.raises(AddressResting, match=r"requested address 10\.0\.0\.2 is resting"):
        add(store, wish, owner(2))
    clock.advance(60)
    assert add(store, wish, owner(2)) == ["10.0.0.2"]


def test_without_rest_a_requested_address_is_given_at_once(store: Store) -> None:
    add(store, conf("10.0.0.0/24"), owner(1))
    delete(store, owner(1))
    assert add(store, conf("10.0.0.0/24", requested="10.0.0.2"), owner(2)) == ["10.0.0.2"]


@pytest.mark.parametrize("jump", [-10_000_000.0, 10_000_000.0])
def test_the_wall_clock_moves_neither_rest_nor_order(
    store: Store, clock: HandClock, jump: float
) -> None:
    config = conf("10.0.0.0/29", rest=60)
    for number in range(5):
        add(store, config, owner(number))
    delete(store, owner(3))
    clock.wall += jump
    delete(store, owner(1))
    with pytest.raises(AddressResting):
        add(store, config, owner(9))
    clock.uptime += 60
    assert [add(store, config, owner(n)) for n in (10, 11)] == [["10.0.0.5"], ["10.0.0.3"]]


def test_an_address_freed_in_the_future_has_rested(store: Store, clock: HandClock) -> None:
    config = conf("10.0.0.0/30", rest=60)
    add(store, config, owner(1))
    delete(store, owner(1))
    clock.uptime -= 500
    assert add(store, config, owner(2)) == ["10.0.0.2"]


def test_what_an_earlier_boot_held_needs_no_rest(store: Store, clock: HandClock) -> None:
    config = conf("10.0.0.0/29", rest=60)
    for number in range(5):
        add(store, config, owner(number))
    delete(store, owner(4))
    store.close()
    clock.uptime = 5
    with open_at(store.data_dir, clock, boot_id="boot-2") as later:
        got = [add(later, config, owner(n))[0] for n in range(5)]
    assert got == ["10.0.0.6", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]


def test_a_grown_and_a_shrunk_range_lose_nothing(store: Store) -> None:
    small = conf([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.2", "rangeEnd": "10.0.0.4"}])
    large = conf([{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.2", "rangeEnd": "10.0.0.6"}])
    for number in (2, 3, 4):
        add(store, small, owner(number))
    delete(store, owner(3))
    got = [add(store, large, owner(n)) for n in (10, 11, 12)]
    assert got == [["10.0.0.5"], ["10.0.0.6"], ["10.0.0.3"]]
    delete(store, owner(12))
    delete(store, owner(4))
    assert [add(store, small, owner(n)) for n in (20, 21)] == [["10.0.0.3"], ["10.0.0.4"]]
    with pytest.raises(RangeExhausted):
        add(store, small, owner(22))


def test_families_do_not_mix_in_the_database(store: Store) -> None:
    # The first bytes of a00:: are those of 10.0.0.0.
    add(store, conf("a00::/126"), owner(1))
    delete(store, owner(1))
    assert add(store, conf("10.0.0.0/8"), owner(2)) == ["10.0.0.2"]
    with store.read() as tx:
        assert free_space(tx, conf("10.0.0.0/8")) == (Space(2**24 - 3, 1),)
        assert tx.addresses(owner(2)) == (ip("10.0.0.2"),)


def test_networks_are_apart(store: Store) -> None:
    other = conf("10.0.0.0/24", network="other")
    assert add(store, conf("10.0.0.0/24"), owner(1)) == ["10.0.0.2"]
    assert add(store, other, owner(1, "other")) == ["10.0.0.2"]
    delete(store, owner(1))
    with store.read() as tx:
        assert (tx.count(NETWORK), tx.count("other")) == (0, 1)


def test_free_space_of_vast_ranges(store: Store) -> None:
    config = conf("10.0.0.0/24", "fd00::/8")
    add(store, config, owner(1))
    with store.read() as tx:
        assert free_space(tx, config) == (Space(253, 1), Space(2**120 - 2, 1))


def test_the_queue_of_a_vast_range_stays_short(
    store: Store, monkeypatch: pytest.MonkeyPatch, clock: HandClock
) -> None:
    monkeypatch.setattr(allocator, "LONGEST_QUEUE", 8)
    config = conf("fd00::/64", rest=10)
    for turn in range(100):
        add(store, config, owner(turn))
        delete(store, owner(turn))
        clock.advance(1)
    with store.read() as tx:
        ((queued,),) = tx.connection.execute("SELECT count(*) FROM freed").fetchall()
        ((counted,),) = tx.connection.execute("SELECT freed FROM pool").fetchall()
    # The rest period (10 s, one address freed each) is longer than the queue: it wins.
    assert queued == counted == 11
