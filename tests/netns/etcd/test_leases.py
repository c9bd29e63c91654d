"""Subnets: leased once, kept, given back, never stolen."""

import json
from functools import partial
from ipaddress import ip_network

import pytest

from tests.netns.etcd.conftest import MakeSeat
from tests.netns.etcd.filling import fill
from tests.netns.etcd.server import Etcd
from tests.netns.routing.conftest import eventually

pytestmark = pytest.mark.xdist_group("etcd_leases")


def test_a_node_leases_a_subnet_of_each_family(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    seat = make_seat().start()
    ipv4, ipv6 = map(ip_network, seat.settle())
    assert ipv4.subnet_of(ip_network("10.244.0.0/16"))  # type: ignore[arg-type]
    assert ipv6.subnet_of(ip_network("fd00:10:244::/48"))  # type: ignore[arg-type]
    assert (ipv4.prefixlen, ipv6.prefixlen) == (24, 64)
    keys = etcd.entries(prefix)
    record = json.loads(keys[f"{prefix}/v1/nodes/node-1"])
    assert len(record.pop("machine")) == 32
    assert record == {"addresses": ["192.0.2.11"], "podCIDRs": [str(ipv4), str(ipv6)]}
    assert keys[f"{prefix}/v1/subnets/ipv4/{str(ipv4).replace('/', '-')}"] == "node-1"
    leases = {kv["lease"] for kv in etcd.pairs(f"{prefix}/v1/nodes")}
    assert leases == {kv["lease"] for kv in etcd.pairs(f"{prefix}/v1/subnets")}


def test_nodes_learn_of_each_other(make_seat: MakeSeat) -> None:
    one, two = make_seat().start(), make_seat().start()
    for seat in (one, two):
        eventually(partial(seat.knows, "node-1", "node-2"))
    assert one.subnets("node-2") == two.settle()
    assert two.subnets("node-1") == one.settle()
    two.leave()
    eventually(partial(one.knows, "node-1"))


def test_a_restart_keeps_the_subnet_and_changes_no_key(make_seat: MakeSeat, etcd: Etcd) -> None:
    seat = make_seat().start()
    before = seat.settle()
    revision = etcd.revision()
    seat.stop()
    assert seat.start().settle() == before
    assert etcd.revision() == revision
    (seat.folder / "cluster.json").unlink()  # without anything to go on from
    seat.stop()
    assert seat.start().settle() == before
    assert etcd.revision() == revision


def test_a_node_that_forgot_everything_gets_its_subnet_back(make_seat: MakeSeat) -> None:
    seat = make_seat().start()
    before = seat.settle()
    seat.stop()
    for path in seat.folder.iterdir():
        path.unlink()
    assert seat.start().settle() == before


def test_leaving_gives_all_back(make_seat: MakeSeat, etcd: Etcd, prefix: str) -> None:
    seat = make_seat().start()
    subnets = seat.settle()
    (lease,) = {kv["lease"] for kv in etcd.pairs(f"{prefix}/v1/nodes")}
    assert f"{lease:x}" in etcd.ctl("lease", "list")
    assert seat.leave() == [f"lease of {subnet} in etcd" for subnet in sorted(subnets)]
    assert set(etcd.entries(prefix)) == {f"{prefix}/v1/lengths/ipv4", f"{prefix}/v1/lengths/ipv6"}
    assert seat.leave() == []
    assert f"{lease:x}" not in etcd.ctl("lease", "list")


def test_two_nodes_race_for_the_last_subnet(make_seat: MakeSeat) -> None:
    ranges = {"clusterCIDRs": ["10.244.0.0/23"]}
    first = make_seat(**ranges).start()
    first.settle()
    rivals = [make_seat(**ranges) for _ in range(2)]
    for seat in rivals:
        seat.start()
    eventually(lambda: sum(bool(s.subnets()) for s in rivals) == 1)
    eventually(lambda: sum("no /24 is free" in s.fault for s in rivals) == 1)
    winner, loser = sorted(rivals, key=lambda s: bool(s.fault))
    (held,), (taken,) = winner.settle(), first.settle()
    for subnet, holder in ((held, winner), (taken, first)):
        assert f"{subnet} {holder.name}" in loser.fault
    # It reaches the others all the same, and gets what comes free.
    eventually(lambda: loser.subnets(winner.name) == [held])
    winner.leave()
    assert loser.settle() == [held]


def test_fifty_nodes_at_once_hold_fifty_subnets(make_seat: MakeSeat) -> None:
    # 64 for 50: most of them collide.
    seats = [make_seat(clusterCIDRs=["10.244.0.0/18"]) for _ in range(50)]
    for seat in seats:
        seat.start()
    held = [subnet for seat in seats for subnet in seat.settle()]
    assert len(held) == len(set(held)) == 50
    names = [seat.name for seat in seats]
    for seat in seats:
        eventually(partial(seat.knows, *names))
        assert {s for name in names for s in seat.subnets(name)} == set(held)


def test_an_expired_lease_is_taken_again_where_it_is_free(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    seat = make_seat().start()
    before = seat.settle()
    (old,) = _expire(etcd, prefix)

    def is_back() -> object:
        found = etcd.pairs(f"{prefix}/v1/subnets")
        return (len(found) == 2 and old not in {kv["lease"] for kv in found}) or found

    eventually(is_back)
    assert seat.settle() == before
    assert all(before == [str(p) for p in s.nodes[0].pod_cidrs] for s in seat.seen)


def test_an_expired_lease_that_another_took_is_refused_loudly_never_stolen(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    ranges = {"clusterCIDRs": ["10.244.0.0/24"], "leaseSeconds": 10}
    first = make_seat(**ranges).start()
    (subnet,) = first.settle()
    first.stop()
    # Cut off for longer than its lease, which really runs out.
    eventually(lambda: not etcd.entries(f"{prefix}/v1/nodes"), 60)
    second = make_seat(**ranges).start()
    assert second.settle() == [subnet]
    first.start()
    eventually(lambda: f"{subnet} of this node was leased to node-2" in first.fault)
    eventually(lambda: first.subnets() == [] and first.subnets("node-2") == [subnet])
    assert second.settle() == [subnet]
    assert etcd.entries(prefix)[f"{prefix}/v1/subnets/ipv4/10.244.0.0-24"] == "node-2"


def test_an_expired_lease_after_a_reboot_gives_a_new_subnet(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    """No pod outlives a boot: nothing is lost with the old subnet."""
    seat = make_seat(clusterCIDRs=["10.244.0.0/23"]).start()
    (before,) = seat.settle()
    seat.stop()
    memory = seat.folder / "etcd-lease.json"
    memory.write_text(json.dumps(json.loads(memory.read_text()) | {"boot": "another"}))
    _expire(etcd, prefix)
    other = before.replace("/", "-")
    etcd.ctl("put", f"{prefix}/v1/subnets/ipv4/{other}", "somebody")
    (after,) = seat.start().settle()
    assert after != before


def test_a_subnet_given_to_another_by_hand_is_not_taken_back(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    """While its node was away: the writer is unknown."""
    seat = make_seat(clusterCIDRs=["10.244.0.0/16"]).start()
    (subnet,) = seat.settle()
    seat.stop()
    key = f"{prefix}/v1/subnets/ipv4/{subnet.replace('/', '-')}"
    etcd.ctl("put", key, "another")
    seat.start()
    eventually(lambda: f"{subnet} of this node was leased to another" in seat.fault or seat.fault)
    assert etcd.entries(prefix)[key] == "another"


def test_a_restart_hears_what_happened_meanwhile_and_reads_no_list(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    etcd.ns.call(partial(fill, etcd, 400, prefix))
    seat = make_seat(clusterCIDRs=["10.96.0.0/11"]).start()
    seat.settle()
    assert seat.source is not None
    whole = seat.source.activity.bytes
    seat.stop()
    etcd.ctl("del", f"{prefix}/v1/nodes/far-7")
    seat.start().settle()
    eventually(lambda: len(seat.nodes()) == 400 or len(seat.nodes()))
    assert "far-7" not in seat.nodes()
    assert seat.source is not None
    assert seat.source.activity.bytes < whole / 20


def test_lengths_that_differ_between_nodes_are_refused(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    make_seat().start().settle()
    other = make_seat(prefixLength={"ipv4": 25, "ipv6": 64}).start()
    eventually(lambda: "source.etcd.prefixLength.ipv4 is 25 here" in other.fault or other.fault)
    assert f"{prefix}/v1/nodes/node-2" not in etcd.entries(prefix)


def test_a_new_address_is_published(make_seat: MakeSeat) -> None:
    one, two = make_seat().start(), make_seat().start()
    before = two.settle()
    eventually(partial(one.knows, "node-1", "node-2"))
    two.stop()
    two.start(addresses=["192.0.2.99"])
    eventually(lambda: str(one.nodes()["node-2"].addresses[0]) == "192.0.2.99")
    assert one.subnets("node-2") == before == two.settle()


def test_a_range_that_is_left_is_given_back(make_seat: MakeSeat, etcd: Etcd, prefix: str) -> None:
    seat = make_seat(clusterCIDRs=["10.244.0.0/16"]).start()
    seat.settle()
    seat.stop()
    (fresh,) = seat.start(clusterCIDRs=["10.96.0.0/16"]).settle()
    assert fresh.startswith("10.96.")
    held = [key for key in etcd.entries(prefix) if "/subnets/" in key]
    assert held == [f"{prefix}/v1/subnets/ipv4/{fresh.replace('/', '-')}"]


def test_a_subnet_reserved_by_hand_is_taken_and_outlives_the_node(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    key = f"{prefix}/v1/subnets/ipv4/10.244.77.0-24"
    etcd.ctl("put", key, "node-1")
    seat = make_seat(clusterCIDRs=["10.244.0.0/16"]).start()
    assert seat.settle() == ["10.244.77.0/24"]
    assert seat.leave() == []
    assert etcd.entries(prefix)[key] == "node-1"


def _expire(etcd: Etcd, prefix: str) -> set[int]:
    """End the leases of all nodes at once, as time would; these."""
    leases = {int(kv["lease"]) for kv in etcd.pairs(f"{prefix}/v1/nodes")}
    for lease in leases:
        etcd.ctl("lease", "revoke", f"{lease:x}")
    return leases
