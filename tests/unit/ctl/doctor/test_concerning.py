"""Which findings matter to another node, or to a pod."""

from __future__ import annotations

import pytest

from ctl.differences import Difference
from ctl.doctor.diagnose import concerning, diagnose
from ctl.doctor.observed import Daemon, Observed
from ctl.doctor.probing import PodProbe
from ctl.planning import Planned
from daemon.probes.report import HealthReport, Trouble
from daemon.routing.planner import Planner
from daemon.status import NodeStatus, Published
from tests.unit.daemon.clusters import cluster, host_state, node, planned, settings

DROP = "this node's own firewall drops VXLAN from peers: rule 2 of table inet other: accept it"


@pytest.fixture
def seen() -> Observed:
    """Of three nodes the first, which reaches neither of the others."""
    host = host_state()
    desired = planned(Planner(settings()), cluster(node(1), node(2), node(3)), host)
    troubles = tuple(
        Trouble(name, "failed", "one-way", why, 0.0)
        for name, why in (("node-2", DROP), ("node-3", "nothing answers: switch it on"))
    )
    status = NodeStatus("node-1", "vxlan", "static", health=HealthReport(troubles=troubles))
    return Observed(
        0.0,
        settings(),
        Planned(host, {}, desired),
        Daemon(Published(status, 7, 0.0, age=1.0, running=True)),
        drops=(DROP,),
        differences=(
            Difference("settings", "", "sysctl a", "1", "0", "a is 0, not 1"),
            Difference("device", "", "link v", "up", "down", "v is down"),
            Difference("routes", "node-2", "route 2", "via x", "", "route 2 is missing"),
            Difference("routes", "node-3", "route 3", "via x", "", "route 3 is missing"),
            Difference("routes", "node-1", "route 1", "via x", "", "own route is missing"),
            Difference("routes", "", "route 9", "", "via x", "route 9 should not be there"),
            Difference("attachments", "shop/db", "link d", "up", "down", "d is down"),
            Difference("pods", "shop/web", "link w", "up", "down", "w is down"),
        ),
        probe=PodProbe("shop/db", servers=("10.96.0.10",), name="shop/db"),
    )


def named(seen: Observed, what: str) -> list[str]:
    """The check and the first word of each finding, in order."""
    found = concerning(diagnose(seen), what, seen)
    return sorted(f"{f.check} {f.what.split(':')[0]}" for f in found)


def test_what_is_wrong_with_this_node_matters_to_each_other(seen: Observed) -> None:
    assert named(seen, "node-2") == [
        "device v is down",
        "filters this node's own firewall drops VXLAN from peers",
        "routes own route is missing",
        "routes route 2 is missing",
        "routes route 9 should not be there",
        "settings a is 0, not 1",
    ]
    assert {*named(seen, "node-3")} - {*named(seen, "node-2")} == {
        "routes route 3 is missing",
        "peers node-3 is not reached (one-way)",
    }


def test_a_dead_daemon_matters_to_other_nodes(seen: Observed) -> None:
    whole = Observed(0.0, seen.settings, seen.planned, Daemon(why="no status"))
    assert named(whole, "node-2") == ["daemon the daemon does not run"]


def test_of_a_pod_other_pods_are_left_out(seen: Observed) -> None:
    found = named(seen, "shop/db")
    assert {*named(seen, "")} - {*found} == {"pods pod shop/web"}
