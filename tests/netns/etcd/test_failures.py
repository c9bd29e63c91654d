"""etcd killed, compacted, wiped, hanging, without a leader: what was known stays, and goes on."""

import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from daemon.sources.etcd import watcher
from tests.netns.etcd.conftest import ADDRESS, MakeSeat, Seat, house, make_seats
from tests.netns.etcd.server import PREFIX, Etcd
from tests.netns.routing.conftest import eventually
from tests.pytest_netns.namespace import run
from tests.pytest_netns.plugin import Registry

pytestmark = pytest.mark.xdist_group("etcd_failures")


@pytest.fixture
def trio(netns_registry: Registry, tmp_path: Path) -> Iterator[Etcd]:
    """Three members, whose tokens expire after seconds."""
    key, public = tmp_path / "jwt.key", tmp_path / "jwt.pub"
    run(["openssl", "genrsa", "-out", key, "2048"])
    run(["openssl", "rsa", "-in", key, "-pubout", "-out", public])
    ns = netns_registry.make("etcd3")
    house(ns)
    tokens = f"jwt,pub-key={public},priv-key={key},sign-method=RS256,ttl=2s"
    made = Etcd(ns, ADDRESS, tmp_path / "etcd", size=3, tokens=tokens)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        ns.remove()


@pytest.fixture
def frail(netns_registry: Registry, tmp_path: Path) -> Iterator[Etcd]:
    """One member, of this test alone."""
    ns = netns_registry.make("etcd1")
    house(ns)
    made = Etcd(ns, ADDRESS, tmp_path / "etcd")
    try:
        made.start()
        yield made
    finally:
        made.stop()
        ns.remove()


@pytest.fixture
def make_frail(frail: Etcd, tmp_path: Path) -> Iterator[MakeSeat]:
    """Makes nodes of that."""
    yield from make_seats(frail, PREFIX, tmp_path)


@pytest.fixture
def of_three(trio: Etcd, tmp_path: Path) -> Iterator[MakeSeat]:
    """Makes nodes of the cluster of three members."""
    yield from make_seats(trio, PREFIX, tmp_path)


def meet(*seats: Seat) -> None:
    """Wait until all know all."""
    for seat in seats:
        eventually(partial(seat.knows, *(s.name for s in seats)))


def test_killed_and_restarted(make_seat: MakeSeat, etcd: Etcd) -> None:
    """Members forget their tokens when they end: everybody must show the password again."""
    one, two = make_seat().start(), make_seat().start()
    meet(one, two)
    before = one.subnets(), one.subnets("node-2")
    etcd.stop()
    for seat in (one, two):
        eventually(seat.is_lost)
        assert set(seat.nodes()) == {"node-1", "node-2"}
    etcd.members[0].start()
    etcd.wait()
    meet(one, two)
    assert (one.subnets(), one.subnets("node-2")) == before
    make_seat().start()
    eventually(partial(one.knows, "node-1", "node-2", "node-3"))


def test_a_daemon_that_starts_while_etcd_is_away_uses_what_was_known(
    make_seat: MakeSeat, etcd: Etcd
) -> None:
    one, two = make_seat().start(), make_seat().start()
    meet(one, two)
    one.stop()
    etcd.stop()
    try:
        one.start()
        eventually(lambda: set(one.nodes()) == {"node-1", "node-2"})
        eventually(lambda: "its last known state is of" in one.fault)
    finally:
        etcd.members[0].start()
        etcd.wait()
    meet(one, two)


def test_compacted_while_no_watch_was_open(make_seat: MakeSeat, etcd: Etcd) -> None:
    one, two = make_seat().start(), make_seat().start()
    meet(one, two)
    one.stop()
    two.leave()
    make_seat().start().settle()
    etcd.ctl("compact", str(etcd.revision()))
    one.start()
    meet_names = partial(one.knows, "node-1", "node-3")
    eventually(meet_names)


def test_compacted_and_defragmented_mid_run(make_seat: MakeSeat, etcd: Etcd) -> None:
    one = make_seat().start()
    one.settle()
    etcd.ctl("compact", str(etcd.revision()))
    etcd.ctl("defrag")
    two = make_seat().start()
    meet(one, two)


def test_keys_that_an_operator_deletes_are_restored(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    one, two = make_seat().start(), make_seat().start()
    meet(one, two)
    before, keys = one.subnets(), etcd.entries(prefix)
    for key in keys:
        if "node-1" in key or keys[key] == "node-1":
            etcd.ctl("del", key)
    eventually(lambda: etcd.entries(prefix) == keys)
    eventually(lambda: two.subnets("node-1") == before)
    assert one.subnets() == before


@pytest.mark.parametrize("ahead", [False, True])
def test_an_etcd_that_lost_everything_is_filled_again(
    frail: Etcd, make_frail: MakeSeat, ahead: bool
) -> None:
    """All nodes keep their subnets, and no node loses sight of another one meanwhile."""
    one, two = make_frail().start(), make_frail().start()
    meet(one, two)
    keys = frail.entries() | {f"{PREFIX}/revision": ""}
    two.stop()
    one.seen.clear()
    frail.wipe()
    for number in range(20 if ahead else 0):
        frail.ctl("put", f"{PREFIX}/revision", str(number))
    eventually(lambda: f"{PREFIX}/v1/nodes/node-1" in frail.entries() or one.fault)
    eventually(partial(one.knows, "node-1", "node-2"))
    assert all(len(snapshot.nodes) == 2 for snapshot in one.seen)
    two.start()
    meet(one, two)
    eventually(lambda: frail.entries() | {f"{PREFIX}/revision": ""} == keys or frail.entries())


def test_a_node_that_died_with_an_etcd_is_forgotten_by_daemons_that_start_anew(
    frail: Etcd, make_frail: MakeSeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its subnet is another node's meanwhile."""
    scarce = {"clusterCIDRs": ["10.244.0.0/23"]}
    one, dead, three = make_frail(**scarce).start(), make_frail(**scarce), make_frail(**scarce)
    one.settle()
    (subnet,) = dead.start().settle()
    eventually(partial(one.knows, "node-1", "node-2"))
    dead.stop()
    frail.wipe()
    eventually(lambda: f"{PREFIX}/v1/nodes/node-1" in frail.entries() or one.fault)
    eventually(partial(one.knows, "node-1", "node-2"))
    one.stop()
    assert json.loads((one.folder / "cluster.json").read_text())["position"] == ""
    one.start()
    eventually(partial(one.knows, "node-1"))
    assert three.start().settle() == [subnet]
    eventually(lambda: one.subnets("node-3") == [subnet])


def test_the_leader_goes(of_three: MakeSeat, trio: Etcd) -> None:
    seats = [of_three(leaseSeconds=10).start() for _ in range(3)]
    meet(*seats)
    trio.leader().kill()
    trio.wait()
    seats.append(of_three(leaseSeconds=10).start())
    meet(*seats)
    _live_through_a_lease(seats, trio)


def test_no_member_leads_for_a_while(of_three: MakeSeat, trio: Etcd) -> None:
    one, two = of_three().start(), of_three().start()
    meet(one, two)
    for member in trio.members[1:]:
        member.kill()
    for seat in (one, two):
        eventually(seat.is_lost)
        assert set(seat.nodes()) == {"node-1", "node-2"}
    for member in trio.members[1:]:
        member.start()
    meet(one, two, of_three().start())


def test_a_member_that_hangs_is_left_for_another(
    of_three: MakeSeat, trio: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "RENEW_MAX", 1.0)
    seat = of_three().start()
    seat.settle()
    for _ in range(2):
        member = next(m for m in trio.members if m.url == seat.endpoint)
        member.signal(signal.SIGSTOP)
        try:
            fresh = of_three(endpoints=[m.url for m in trio.members if m is not member])
            fresh.start().settle()
            eventually(partial(_sees, seat, fresh), 60)
            assert seat.endpoint != member.url
        finally:
            member.signal(signal.SIGCONT)


def test_a_network_that_swallows_everything_is_noticed(
    frail: Etcd, make_frail: MakeSeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No packet shows the failure: neither the stream nor the kernel notices it."""
    monkeypatch.setattr(watcher, "RENEW_MAX", 1.0)
    seat = make_frail().start()
    before = seat.settle()
    rules = (
        "add table inet t; add chain inet t in { type filter hook input priority 0; policy drop; }"
    )
    frail.ns.run(["nft", rules])
    eventually(seat.is_lost, 60)
    assert seat.subnets() == before
    frail.ns.run(["nft", "delete table inet t"])
    assert seat.settle() == before


def _sees(seat: Seat, other: Seat) -> object:
    return other.name in seat.nodes() or (seat.nodes(), seat.fault)


def _live_through_a_lease(seats: list[Seat], etcd: Etcd) -> None:
    """Tokens expire, leases are renewed."""
    keys = etcd.entries()
    until = time.monotonic() + 15
    while time.monotonic() < until:
        assert etcd.entries() == keys
        time.sleep(1)
    for seat in seats:
        assert seat.knows(*(s.name for s in seats)) is True
