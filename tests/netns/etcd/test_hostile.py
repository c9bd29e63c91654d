"""What others write into the keys, by hand or in malice: never steals, never stops the source."""

import json
from functools import partial

import pytest

from daemon.sources.etcd.registration import Registration
from tests.netns.etcd.conftest import MakeSeat
from tests.netns.etcd.server import Etcd
from tests.netns.routing.conftest import eventually

pytestmark = pytest.mark.xdist_group("etcd_hostile")

RECORD = '{"addresses":["192.0.2.66"],"podCIDRs":["10.244.66.0/24"]}'


def key_of(prefix: str, subnet: str) -> str:
    return f"{prefix}/v1/subnets/ipv{6 if ':' in subnet else 4}/{subnet.replace('/', '-')}"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nodes/node-9", "{"),
        ("nodes/node-9", "[" * 4000),
        ("nodes/node-9", '{"addresses":["127.0.0.1"],"podCIDRs":[]}'),
        ("nodes/node-9", '{"addresses":["192.0.2.66"],"podCIDRs":["0.0.0.0/0"]}'),
        ("nodes/node-9", '{"addresses":["192.0.2.66\\n"],"podCIDRs":[]}'),
        ("nodes/node-9", '{"addresses":[3232235777],"podCIDRs":[]}'),
        ("nodes/node-9", '{"addresses":["192.0.2.66"],"podCIDRs":' + json.dumps(["x"] * 99) + "}"),
        ("nodes/../../etc", RECORD),
        ("nodes/Node_9", RECORD),
        ("nodes/\x1b[31m", RECORD),
        ("subnets/ipv4/10.244.66.0-24", "../../root"),
        ("subnets/ipv4/010.244.66.0-24", "node-9"),
        ("subnets/ipv6/10.244.66.0-24", "node-9"),
        ("subnets/ipv4/10.244.66.1-24", "node-9"),
        ("elsewhere/x", "y"),
        ("lengths/ipv5", "24"),
    ],
)
def test_nonsense_is_left_out_and_logged(
    make_seat: MakeSeat,
    etcd: Etcd,
    prefix: str,
    key: str,
    value: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    etcd.ctl("del", f"{prefix}/", "--prefix")
    one = make_seat().start()
    one.settle()
    capfd.readouterr()
    etcd.ctl("put", f"{prefix}/v1/{key}", value)
    two = make_seat().start()
    eventually(partial(one.knows, "node-1", "node-2"))
    eventually(partial(two.knows, "node-1", "node-2"))
    lines = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    assert len(lines) == 2, lines  # each logs it once
    assert all(line.isprintable() and len(line) < 400 for line in lines)


def test_a_prefix_outside_of_the_ranges_is_never_a_nodes(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    one = make_seat().start()
    one.settle()
    for subnet in ("10.244.66.0/24", "8.8.8.0/24", "2001:4860:4860::/64"):
        etcd.ctl("put", key_of(prefix, subnet), "node-9")
    record = {
        "addresses": ["192.0.2.66"],
        "podCIDRs": ["8.8.8.0/24", "10.244.66.0/24", "2001:4860:4860::/64"],
    }
    etcd.ctl("put", f"{prefix}/v1/nodes/node-9", json.dumps(record))
    eventually(partial(one.knows, "node-1", "node-9"))
    assert one.subnets("node-9") == ["10.244.66.0/24"]


def test_a_record_alone_gives_no_prefix(make_seat: MakeSeat, etcd: Etcd, prefix: str) -> None:
    one, two = make_seat().start(), make_seat().start()
    held = two.settle()
    record = {"addresses": ["192.0.2.66"], "podCIDRs": [*held, "10.244.66.0/24"]}
    etcd.ctl("put", f"{prefix}/v1/nodes/node-9", json.dumps(record))
    for seat in (one, two):
        eventually(partial(seat.knows, "node-1", "node-2", "node-9"))
        assert seat.subnets("node-9") == []
        assert seat.subnets("node-2") == held


def test_a_subnet_written_over_stays_its_holders(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    one, two = make_seat().start(), make_seat().start()
    held = two.settle()
    eventually(partial(one.knows, "node-1", "node-2"))
    before = etcd.entries(prefix)
    etcd.ctl("put", f"{prefix}/v1/nodes/node-9", json.dumps(
        {"addresses": ["192.0.2.66"], "podCIDRs": held}
    ))  # fmt: skip
    for subnet in held:
        etcd.ctl("put", key_of(prefix, subnet), "node-9")
    # Its holder restores it, and no node ever uses it.
    after = {**before, f"{prefix}/v1/nodes/node-9": etcd.entries(prefix).get("x", "")}
    eventually(lambda: etcd.entries(prefix).keys() == after.keys() or etcd.entries(prefix))
    eventually(lambda: all(etcd.entries(prefix)[key_of(prefix, s)] == "node-2" for s in held))
    for seat in (one, two):
        eventually(partial(seat.knows, "node-1", "node-2", "node-9"))
        for snapshot in seat.seen:
            taken = {p for n in snapshot.nodes if n.name == "node-9" for p in n.pod_cidrs}
            assert not taken


def test_a_client_that_keeps_overwriting_a_record_changes_no_route(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    one = make_seat().start()
    held = one.settle()
    key = f"{prefix}/v1/nodes/node-1"
    mine = etcd.entries(prefix)[key]
    for number in range(5):
        etcd.ctl("put", key, RECORD.replace("66", str(70 + number)))
        eventually(lambda: etcd.entries(prefix)[key] == mine)
    assert one.subnets() == held


@pytest.mark.parametrize("value", ["", "for printers", "{}"])
def test_a_subnet_reserved_by_a_text_is_no_nodes(
    make_seat: MakeSeat, etcd: Etcd, prefix: str, value: str
) -> None:
    etcd.ctl("del", f"{prefix}/", "--prefix")
    for number in range(3):
        etcd.ctl("put", key_of(prefix, f"10.244.{number}.0/24"), value)
    one = make_seat(clusterCIDRs=["10.244.0.0/22"]).start()
    assert one.settle() == ["10.244.3.0/24"]
    two = make_seat(clusterCIDRs=["10.244.0.0/22"]).start()
    eventually(lambda: f"10.244.2.0/24 '{value}'" in two.fault or two.fault)
    etcd.ctl("del", key_of(prefix, "10.244.1.0/24"))
    assert two.settle() == ["10.244.1.0/24"]


def test_a_node_whose_subnet_is_given_to_words_says_that_it_lost_it(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    one, two = make_seat().start(), make_seat().start()
    subnet, _ = one.settle()
    eventually(partial(two.knows, "node-1", "node-2"))
    one.stop()
    etcd.ctl("put", key_of(prefix, subnet), "for printers")
    one.start()
    words = f"subnet {subnet} of this node was leased to 'for printers'"
    eventually(lambda: words in one.fault or one.fault)
    assert one.subnets() == []
    assert etcd.entries(prefix)[key_of(prefix, subnet)] == "for printers"


def test_a_registration_that_never_succeeds_is_a_fault_and_slows_down(
    make_seat: MakeSeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Registration, "register", lambda *_: False)
    seat = make_seat().start()
    eventually(lambda: "times other clients wrote" in seat.fault or seat.fault)
    monkeypatch.undo()
    seat.settle()


def test_a_length_that_is_nonsense_is_refused_by_name(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    etcd.ctl("put", f"{prefix}/v1/lengths/ipv4", "\x1b]0;x")
    seat = make_seat().start()
    eventually(lambda: f"the key {prefix}/v1/lengths/ipv4" in seat.fault or seat.fault)
    assert seat.fault.isprintable()
