"""The order of findings, and what the journal adds to them."""

from __future__ import annotations

from dataclasses import replace

from ctl.differences import Difference
from ctl.doctor.diagnose import diagnose
from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Daemon, Observed
from daemon.journal import Record
from daemon.probes.report import HealthReport, Trouble
from daemon.status import NodeStatus, Published
from ipam.usage import Usage

NOW = 1_000_000.0
TROUBLE = Trouble("node-2", "failed", "overlay-blocked", "it is mute: let UDP pass", NOW - 60)


def found_in(seen: Observed) -> tuple[Finding, ...]:
    """All findings but that there is no configuration."""
    return tuple(f for f in diagnose(seen) if f.check != "plan")


def published(status: NodeStatus) -> Daemon:
    return Daemon(Published(status, 7, NOW, age=1.0, running=True))


def test_nothing_is_wrong() -> None:
    assert found_in(Observed(NOW, daemon=published(NodeStatus("node-1", "vxlan", "static")))) == ()


def test_the_worst_comes_first_whatever_found_it() -> None:
    status = NodeStatus(
        "node-1", "vxlan", "static",
        faults={"metrics": "the port is taken: set metrics.listen"},
        health=HealthReport(failed=1, troubles=(TROUBLE,)),
    )  # fmt: skip
    found = found_in(Observed(NOW, daemon=published(status)))
    assert [f.check for f in found] == ["peers", "metrics"]
    assert [f.severity for f in found] == [Severity.BROKEN, Severity.NOTICE]
    assert found[0].what == "node-2 is not reached (overlay-blocked): it is mute"
    assert found[0].do == "let UDP pass; run `podwirectl doctor` on node-2"
    assert (found[0].where, found[0].since) == ("node-2", NOW - 60)


def test_a_peer_is_not_blamed_for_this_nodes_own_filter() -> None:
    text = "this node's own firewall drops VXLAN: rule 4: accept it there"
    trouble = Trouble("node-2", "failed", "one-way", text, NOW)
    status = NodeStatus(
        "node-1", "vxlan", "static", health=HealthReport(failed=1, troubles=(trouble,))
    )
    records = (Record(NOW - 30, "failed", "firewall of this node", text),)
    [found] = found_in(Observed(NOW, daemon=published(status), drops=(text,), records=records))
    assert (found.check, found.since) == ("filters", NOW - 30)


def test_a_fault_without_a_remedy_is_no_remedy() -> None:
    status = NodeStatus("node-1", "vxlan", "static", faults={"policy": "pods a/b are closed"})
    [found] = found_in(Observed(NOW, daemon=published(status)))
    assert (found.what, found.do) == (
        "network policies: pods a/b are closed",
        "journalctl -u podwired",
    )
    status = replace(status, faults={"policy": "pods a/b are closed: see the API server"})
    [found] = found_in(Observed(NOW, daemon=published(status)))
    assert found.what == "network policies: pods a/b are closed"
    assert found.do == "see the API server"


def test_a_stale_status_says_nothing() -> None:
    status = NodeStatus("node-1", "vxlan", "static", fault="no plan")
    old = Daemon(Published(status, 7, NOW - 3600, age=3600.0, running=False))
    assert found_in(Observed(NOW, daemon=old)) == ()


def test_repairs_of_the_last_minutes_are_notices_with_their_author() -> None:
    records = (
        Record(NOW - 9000, "restored", "route 10.244.3.0/24", "removed by pid 5 (ip)"),
        Record(NOW - 20, "restored", "route 10.244.2.0/24", "removed by pid 6 (ip)", "gone"),
        Record(NOW - 10, "restored", "route 10.244.2.0/24", "removed by pid 7 (ip)", "gone"),
    )
    [found] = found_in(Observed(NOW, records=records))
    assert found.severity is Severity.NOTICE
    assert (found.since, found.who) == (NOW - 10, "removed by pid 7 (ip)")
    assert "route 10.244.2.0/24" in found.what


def test_who_changes_an_object_again_and_again_is_named() -> None:
    again = "9 times now: podwire goes on repairing it"
    record = Record(NOW - 10, "flapping", "route R", f"removed by pid 7 (a, b) c), {again}")
    route = Difference("routes", "node-2", "route R", "via X", "", "route R is missing")
    found = found_in(Observed(NOW, differences=(route,), records=(record,)))[0]
    assert (found.since, found.who) == (NOW - 10, "removed by pid 7 (a, b) c)")
    nobody = replace(record, cause=f"removed, {again}")
    found = found_in(Observed(NOW, differences=(route,), records=(nobody,)))[0]
    assert (found.since, found.who) == (NOW - 10, "")
    found = found_in(
        Observed(NOW, differences=(route,), records=(replace(record, action="found"),))
    )[0]
    assert (found.since, found.who) == (NOW - 10, "")


def test_a_range_is_scarce_before_it_is_full() -> None:
    seen = Observed(NOW, usage=(Usage("podwire", 4, 228, size=253), Usage("x", 4, 253, size=253)))
    full, scarce = found_in(seen)
    assert (full.severity, scarce.severity) == (Severity.BROKEN, Severity.NOTICE)
    assert "network x are in use: new pods get none" in full.what


def test_what_an_earlier_container_of_a_pod_had_is_not_its_fault() -> None:
    lost = Difference("pods", "shop/web", "route 0.0.0.0/0", "via x", "", "it is missing")
    old = Record(NOW - 800, "found", "link pw1 of shop/web", "its link is gone")
    new = replace(old, time=NOW - 12, object="link pw2 of shop/web")
    seen = Observed(
        NOW, differences=(lost,), records=(old, new), attached_since={"shop/web": NOW - 60}
    )
    assert [f.since for f in found_in(seen)] == [NOW - 12]
    assert [f.since for f in found_in(replace(seen, records=(old,)))] == [None]
