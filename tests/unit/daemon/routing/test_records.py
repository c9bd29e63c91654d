"""What the journal says: each repair by itself, changes of the plan by node."""

from __future__ import annotations

from daemon.routing.mirror import Repair
from daemon.routing.records import records_of
from daemon.routing.wording import name_author, tell_change
from kernel.describe import name_of, state_of
from kernel.diff import key_of
from kernel.model import Entry, Link, Route
from kernel.netlink.monitor import Event
from tests.unit.daemon.routing.test_mirror import peer_entries


def repair(have: Entry | None, want: Entry | None, node: str = "b", cause: str = "") -> Repair:
    entry = want or have
    assert entry is not None
    return Repair(key_of(entry), node, have, want, cause)


def test_a_peer_that_joins_is_one_record() -> None:
    [record] = records_of([repair(None, e, "node-2") for e in peer_entries(2, 0)])
    assert (record.action, record.object) == ("added", "node node-2 10.0.2.0/24")
    assert (record.before, record.after) == ("", "via 10.0.2.0 dev vx onlink proto 113")
    assert record.cause == "the plan"


def test_peers_that_leave_or_move() -> None:
    old, new = peer_entries(2, 0), peer_entries(3, 1)
    gone = [repair(e, None, "a") for e in old]
    moved = [repair(e, None, "b") for e in old] + [repair(None, e, "b") for e in new]
    records = {r.object: r.action for r in records_of([*gone, *moved])}
    assert records == {
        "node a 10.0.2.0/24": "removed",
        "node b 10.0.2.0/24 10.0.3.0/24": "changed",
    }


def test_damage_is_told_one_by_one_unless_there_is_much() -> None:
    few = [repair(None, e, "b", "removed by pid 7") for e in peer_entries(2, 0)]
    assert [r.action for r in records_of(few)] == ["restored"] * 3
    assert {r.cause for r in records_of(few)} == {"removed by pid 7"}
    many = [repair(None, e, f"n{n}", "lost") for n in range(1, 101) for e in peer_entries(n, 0)]
    records = records_of(many)
    assert len(records) == 100
    assert {(r.action, r.cause) for r in records} == {("restored", "lost")}
    assert "node n7 10.0.7.0/24" in {r.object for r in records}


def test_strays_are_removed_and_bounded() -> None:
    [record] = records_of([repair(peer_entries(9, 0)[2], None, "", "added by pid 7")])
    assert (record.action, record.object, record.after) == ("removed", "route 10.0.9.0/24", "")
    strays = [repair(e, None, "") for n in range(200) for e in peer_entries(n, 0)]
    assert len(records_of(strays)) == 65


def test_words() -> None:
    fdb, neighbour, route = peer_entries(2, 0)
    assert (name_of(fdb), state_of(fdb)) == ("fdb 02:00:00:00:00:02", "dst 192.0.2.2 dev vx")
    assert name_of(neighbour) == "neighbour 10.0.2.0"
    assert state_of(neighbour) == "lladdr 02:00:00:00:00:02 dev vx"
    assert isinstance(route, Route)
    assert state_of(None) == ""
    assert "several next hops" in state_of(Route(route.dst, "", protocol=113))
    assert name_author(0) == "the kernel"
    assert name_author(1).startswith("pid 1 (")


def test_nobody_is_blamed_where_nobody_is_named() -> None:
    """The kernel leaves out who removed a link; saying that it did so itself would be a lie."""
    fdb, neighbour, _route = peer_entries(2, 0)
    nobody = Event("link", True, Link("vx"), 0)
    assert tell_change("removed", nobody) == "removed"
    assert tell_change("removed", Event("fdb", True, fdb, 0)) == "removed"
    assert tell_change("removed", Event("neighbour", True, neighbour, 0)) == "removed by the kernel"
    echoed = Event("link", True, Link("vx"), 1 << 23)
    assert tell_change("removed", echoed) == f"removed by a process (netlink port {1 << 23})"
