"""Names: each is one machine's, whatever another one calls itself, or was copied from."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from daemon.sources.etcd import client
from tests.netns.etcd.conftest import MakeSeat, Seat
from tests.netns.etcd.server import Etcd
from tests.netns.routing.conftest import eventually

pytestmark = pytest.mark.xdist_group("etcd_identity")

WORDS = "node-1 is registered by another machine, 192.0.2.11: give this one another name"


def twin(make_seat: MakeSeat, folder: Path, **changes: object) -> Seat:
    """A machine that calls itself node-1 as well."""
    seat = make_seat(**changes)
    seat.name, seat.folder = "node-1", folder / "twin"
    return seat


def refuses(seat: Seat) -> object:
    """True where its fault is that the first machine has its name."""
    return WORDS in seat.fault or seat.fault


def test_a_name_is_the_first_machines(
    make_seat: MakeSeat, etcd: Etcd, prefix: str, tmp_path: Path
) -> None:
    one, three = make_seat().start(), make_seat().start()
    before = one.settle()
    eventually(partial(three.knows, "node-1", "node-2"))
    pairs = etcd.pairs(prefix)
    two = twin(make_seat, tmp_path).start()
    eventually(partial(refuses, two))
    eventually(lambda: two.subnets("node-2") == three.settle())
    assert two.subnets() == []
    two.stop()
    assert two.leave() == []
    assert etcd.pairs(prefix) == pairs
    assert one.knows("node-1", "node-2") is True
    assert one.subnets() == three.subnets("node-1") == before


def test_a_machine_at_another_address_gets_its_name_when_the_lease_of_it_ends(
    make_seat: MakeSeat, etcd: Etcd, prefix: str, tmp_path: Path
) -> None:
    one = make_seat().start()
    before = one.settle()
    one.stop()
    two = twin(make_seat, tmp_path).start()
    eventually(partial(refuses, two))
    (lease,) = {int(kv["lease"]) for kv in etcd.pairs(f"{prefix}/v1/nodes")}
    etcd.ctl("lease", "revoke", f"{lease:x}")
    assert two.settle()
    # The first one has lost its name, and reports that.
    one.start()
    eventually(lambda: WORDS.replace("2.11", "2.12") in one.fault or one.fault)
    assert one.subnets() == []
    assert before


def test_a_name_that_is_taken_from_a_running_daemon_is_not_fought_over(
    make_seat: MakeSeat, etcd: Etcd, prefix: str, tmp_path: Path
) -> None:
    """At its own address: two daemons on one machine."""
    one = make_seat().start()
    one.settle()
    two = twin(make_seat, tmp_path, addresses=["192.0.2.11"]).start()
    eventually(partial(refuses, one))
    two.settle()
    pairs = etcd.pairs(prefix)
    eventually(partial(refuses, one))
    assert etcd.pairs(prefix) == pairs
    assert two.knows("node-1") is True


def test_a_node_that_is_renamed_keeps_its_subnets(
    make_seat: MakeSeat, etcd: Etcd, prefix: str
) -> None:
    seat, other = make_seat().start(), make_seat().start()
    before = seat.settle()
    eventually(partial(other.knows, "node-1", "node-2"))
    seat.stop()
    seat.name = "renamed"
    assert seat.start().settle() == before
    eventually(partial(other.knows, "renamed", "node-2"))
    assert other.subnets("renamed") == before
    keys = etcd.entries(prefix)
    assert f"{prefix}/v1/nodes/node-1" not in keys
    assert "node-1" not in keys.values()


def test_leaving_lists_what_was_removed_though_another_client_writes_meanwhile(
    make_seat: MakeSeat, etcd: Etcd, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seat = make_seat(clusterCIDRs=["10.244.0.0/16"]).start()
    (subnet,) = seat.settle()
    seat.stop()
    key = f"{prefix}/v1/nodes/node-1"
    whole, wrote = client.read_all, list[bool]()

    def read_all(*args: Any) -> Any:
        found = whole(*args)
        if not wrote:
            wrote.append(True)
            etcd.ctl("put", key, etcd.entries(prefix)[key], "--ignore-lease")
        return found

    monkeypatch.setattr(client, "read_all", read_all)
    assert seat.leave() == [f"lease of {subnet} in etcd"]
    assert set(etcd.entries(prefix)) == {f"{prefix}/v1/lengths/ipv4"}
