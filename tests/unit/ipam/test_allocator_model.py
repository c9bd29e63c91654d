"""The allocator beside a naive one that looks at every address, step by step."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from ipaddress import summarize_address_range
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ipam.allocator import allocate, free_space
from ipam.config import IpamConf
from ipam.errors import (
    AddressResting,
    AddressTaken,
    ConfigError,
    IpamError,
    RangeExhausted,
)
from ipam.ranges import IPAddress, RangeSet, gateways_of
from ipam.store import Owner, Store
from tests.unit.ipam.helpers import HandClock, conf, open_at, owner

REST = 30.0
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Thousands of commits are made here; none needs to reach a disk."""


@dataclass
class Naive:
    """Lists of addresses, searched from the front."""

    clock: HandClock
    held: dict[IPAddress, Owner] = field(default_factory=dict)
    freed: list[tuple[IPAddress, float]] = field(default_factory=list)

    def allocate(self, config: IpamConf, who: Owner) -> list[IPAddress] | type[IpamError]:
        chosen = []
        for range_set in config.range_sets:
            answer = self._choose(config, range_set, who)
            if isinstance(answer, type):
                return answer
            chosen.append(answer)
        for address in chosen:
            self.held[address] = who
            self.freed = [(a, t) for a, t in self.freed if a != address]
        return chosen

    def _choose(
        self, config: IpamConf, range_set: RangeSet, who: Owner
    ) -> IPAddress | type[IpamError]:
        addresses = [a for r in range_set for a in every_address(r.start, r.end)]
        mine = sorted(a for a in addresses if self.held.get(a) == who)
        wished = [a for a in config.requested if a in addresses]
        if mine:
            return mine[0] if not wished else (wished[0] if wished[0] in mine else AddressTaken)
        if wished:
            if wished[0] in self.held:
                return AddressTaken
            return wished[0] if self._rested(config, wished[0]) else AddressResting
        usable = [a for a in addresses if a not in gateways_of(config.range_sets)]
        free = [a for a in usable if a not in self.held]
        once_held = [a for a, _ in self.freed]
        unused = [a for a in free if a not in once_held]
        rested = [a for a in once_held if a in free and self._rested(config, a)]
        if unused or rested:
            return (unused + rested)[0]
        return AddressResting if free else RangeExhausted

    def _rested(self, config: IpamConf, address: IPAddress) -> bool:
        times = [t for a, t in self.freed if a == address]
        return not times or self.clock.uptime - times[0] >= config.rest

    def release(self, who: Owner) -> list[IPAddress]:
        mine = sorted((a for a, o in self.held.items() if o == who), key=in_store_order)
        for address in mine:
            del self.held[address]
            self.freed.append((address, self.clock.uptime))
        return mine

    def reboot(self) -> None:
        rested = float("-inf")
        self.freed = [(a, rested) for a, _ in self.freed]
        self.freed += [(a, rested) for a in sorted(self.held, key=in_store_order)]
        self.held = {}


def in_store_order(address: IPAddress) -> tuple[int, int]:
    return address.version, int(address)


def every_address(first: IPAddress, last: IPAddress) -> list[IPAddress]:
    return [a for net in summarize_address_range(first, last) for a in net]


V4 = {"subnet": "10.0.0.0/28"}
SHAPES: list[list[list[dict[str, str]] | str]] = [
    ["10.0.0.0/29"],
    ["10.0.0.0/29", "fd00::/125"],
    [[{**V4, "rangeStart": "10.0.0.3", "rangeEnd": "10.0.0.4", "gateway": "10.0.0.7"},
      {**V4, "rangeStart": "10.0.0.6", "rangeEnd": "10.0.0.9", "gateway": "10.0.0.3"}]],
    [[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30", "gateway": "10.0.1.2"}], "fd00::/126"],
]  # fmt: skip
WISHES = ["10.0.0.3", "10.0.0.6", "fd00::3"]


class SameAsNaive(RuleBasedStateMachine):
    """Every answer, and every state after it, is the naive allocator's."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="podwire-ipam-", dir=IN_MEMORY))
        self.clock = HandClock()
        self.boot = 1
        self.naive = Naive(self.clock)
        self.store = self.open()

    def open(self) -> Store:
        return open_at(self.folder, self.clock, f"boot-{self.boot}")

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize(shape=st.sampled_from(SHAPES), rest=st.sampled_from([0.0, REST]))
    def configure(self, shape: list[list[dict[str, str]] | str], rest: float) -> None:
        self.shape, self.rest = shape, rest

    @rule(name=st.integers(0, 11))
    def add(self, name: int) -> None:
        self.check_add(conf(*self.shape, rest=self.rest), owner(name))

    @rule(name=st.integers(0, 11), wish=st.sampled_from(WISHES))
    def add_with_wish(self, name: int, wish: str) -> None:
        try:
            config = conf(*self.shape, rest=self.rest, requested=wish)
        except ConfigError:  # a gateway, or of no range
            return
        self.check_add(config, owner(f"{name}-wish"))

    def check_add(self, config: IpamConf, who: Owner) -> None:
        expected = self.naive.allocate(config, who)
        try:
            with self.store.transaction() as tx:
                got = [assigned.address.ip for assigned in allocate(tx, config, who)]
        except IpamError as error:
            assert type(error) is expected, (error, expected)  # noqa: PT017
        else:
            assert got == expected

    @rule(name=st.integers(0, 11), suffix=st.sampled_from(["", "-wish"]))
    def delete(self, name: int, suffix: str) -> None:
        who = owner(f"{name}{suffix}")
        with self.store.transaction() as tx:
            assert list(tx.release(who)) == self.naive.release(who)

    @rule(seconds=st.sampled_from([1, REST / 2, REST]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(jump=st.integers(-(10**8), 10**8))
    def set_the_wall_clock(self, jump: int) -> None:
        self.clock.wall += jump

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.open()

    @precondition(lambda self: len(self.naive.held) > 2)
    @rule()
    def reboot(self) -> None:
        self.store.close()
        self.boot += 1
        self.clock.uptime = 3.0
        self.naive.reboot()
        self.store = self.open()

    @invariant()
    def same_state(self) -> None:
        with self.store.read() as tx:
            assert {a.address: a.owner for a in tx.allocations()} == self.naive.held
            assert tx.connection.execute(WRONG_COUNTS).fetchall() == []

    @invariant()
    def same_count(self) -> None:
        if hasattr(self, "shape"):
            with self.store.read() as tx:
                spaces = free_space(tx, conf(*self.shape))
            assert sum(space.allocated for space in spaces) == len(self.naive.held)


WRONG_COUNTS = """
SELECT id, freed FROM pool
WHERE freed <> (SELECT count(*) FROM freed WHERE freed.pool = pool.id)
"""


class WithChangingRanges(SameAsNaive):
    """The network's ranges change all the time.

    Which of the freed addresses comes first is then open, but there is one exactly when the
    naive allocator has one, and never-used ones come in the same order.
    """

    @rule(shape=st.sampled_from([0, 1, 2, 3]))
    def change(self, shape: int) -> None:
        start, end = [("2", "3"), ("2", "6"), ("4", "9"), ("3", "5")][shape]
        subnet = {"subnet": "10.0.0.0/28", "gateway": "10.0.0.15"}
        self.shape = [[{**subnet, "rangeStart": f"10.0.0.{start}", "rangeEnd": f"10.0.0.{end}"}]]

    @initialize(rest=st.sampled_from([0.0, REST]))
    def configure(self, rest: float) -> None:
        self.rest = rest
        self.change(0)

    def check_add(self, config: IpamConf, who: Owner) -> None:
        before = Naive(self.clock, dict(self.naive.held), list(self.naive.freed))
        expected = self.naive.allocate(config, who)
        try:
            with self.store.transaction() as tx:
                (got,) = (assigned.address.ip for assigned in allocate(tx, config, who))
        except IpamError as error:
            assert type(error) is expected, (error, expected)  # noqa: PT017
            return
        assert not isinstance(expected, type)
        if [got] != expected:
            times = dict(before.freed)
            assert expected[0] in times, "a never-used address was passed over"
            assert self.clock.uptime - times[got] >= self.rest
            before.held[got] = who
            before.freed = [(a, t) for a, t in before.freed if a != got]
            self.naive = before

    @invariant()
    def same_count(self) -> None:
        pass


SameAsNaive.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
WithChangingRanges.TestCase.settings = SameAsNaive.TestCase.settings
TestSameAsNaive = SameAsNaive.TestCase
TestWithChangingRanges = WithChangingRanges.TestCase
