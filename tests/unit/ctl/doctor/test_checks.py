"""Each check, by what was observed."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ctl.differences import AREAS, Difference, settle_seconds
from ctl.doctor.checks.differences import check_differences
from ctl.doctor.checks.node import check_disk, check_levels
from ctl.doctor.checks.paths import check_stale_flows
from ctl.doctor.checks.probes import check_probes
from ctl.doctor.checks.service import check_unread
from ctl.doctor.finding import Severity
from ctl.doctor.observed import Daemon, Observed
from ctl.doctor.probing import PodProbe
from ctl.trace.hop import Verdict
from daemon.routing.peer_filter import RETIRE_SECONDS
from daemon.status import NodeStatus, Published
from ipam.errors import StoreError, damaged, from_os
from kernel.conntrack import StaleFlow
from kernel.errors import KernelError
from kernel.limits import Disk, Level
from kernel.model import Link, Route
from tests.unit.daemon.clusters import settings

DEVICE = Difference(
    "device", "", "link podwire-vxlan", "vxlan id 1", "", "link podwire-vxlan is missing",
    Link("podwire-vxlan", "vxlan"),
)  # fmt: skip
ROUTE = Difference(
    "routes", "node-2", "route 10.244.2.0/24", "via 10.244.2.0 dev podwire-vxlan", "",
    "route 10.244.2.0/24 is missing",
    Route(ip_network("10.244.2.0/24"), "podwire-vxlan", ip_address("10.244.2.0")),
)  # fmt: skip
STRAY = Difference("routes", "", "route 10.244.9.0/24", "", "dev eth0", "it should not be there")
IN_POD = Difference("pods", "default/web", "route 0.0.0.0/0", "via 10.244.1.1", "", "it is missing")


def test_what_went_with_the_device_is_no_finding_of_its_own() -> None:
    [found] = check_differences(Observed(0.0, differences=(ROUTE, DEVICE)))
    assert found.what == "link podwire-vxlan is missing: pods of other nodes are not reached"


def test_a_device_that_is_there_explains_no_missing_route() -> None:
    other = Difference("device", "", DEVICE.name, "mtu 1450", "mtu 1400", "", DEVICE.noun)
    links = {"podwire-vxlan": Link("podwire-vxlan", "vxlan")}
    found = list(check_differences(Observed(0.0, links=links, differences=(ROUTE, other))))
    assert [f.check for f in found] == ["device", "routes"]
    assert found[1].what.endswith(": pods of node-2 are not reached")


def test_a_peer_that_left_stays_in_the_filter_for_a_while() -> None:
    admitted = Difference("filter", "", "element peers4 192.0.2.13", "", "there", "text")
    assert settle_seconds([admitted]) > RETIRE_SECONDS > settle_seconds([DEVICE])


def test_a_stray_comes_last_and_cuts_nobody_off() -> None:
    found = list(check_differences(Observed(0.0, differences=(STRAY, IN_POD))))
    assert [(f.check, f.severity) for f in found] == [
        ("pods", Severity.BROKEN),
        ("routes", Severity.DEGRADED),
    ]
    assert (found[0].where, found[0].what) == ("default/web", "pod default/web: it is missing")


SETTINGS = settings()
STATUS = NodeStatus("node-1", "vxlan", "static")
DEAD = Daemon(Published(STATUS, 7, 0.0, age=60.0, running=False))


def remedies(daemon: Daemon, *found: Difference) -> list[tuple[str, bool]]:
    seen = Observed(0.0, SETTINGS, daemon=daemon, differences=found)
    return [(f.do, f.fixable) for f in check_differences(seen)]


@pytest.mark.parametrize(
    ("area", "fixable"),
    [(area, area not in ("rules", "filter", "policy", "conflist")) for area in AREAS],
)
def test_only_what_fix_repairs_is_fixable(area: str, fixable: bool) -> None:
    [(do, promised)] = remedies(DEAD, Difference(area, "web", "x", "up", "down", "x is down"))
    assert (promised, "--fix" in do) == (fixable, fixable)
    assert do.startswith("start podwired")


def test_what_a_daemon_that_runs_does_not_repair_fix_does_not_either() -> None:
    published = Published(STATUS, 7, 0.0, age=1.0, running=True)
    [(do, fixable)] = remedies(Daemon(published), ROUTE)
    assert ("start podwired" in do, fixable) == (False, False)
    [(do, fixable)] = remedies(Daemon(replace(published, suspended=True)), ROUTE)
    assert ("--fix" in do, fixable) == (True, True)


@pytest.mark.parametrize("area", ["attachments", "pods"])
def test_an_end_of_a_pair_that_is_gone_is_made_by_a_new_add_alone(area: str) -> None:
    gone = Difference(area, "web", "link eth0", "veth", "", "link eth0 is gone", Link("eth0"))
    assert remedies(DEAD, gone) == [("recreate the pod", False)]


def test_what_went_with_a_pods_link_is_no_finding_of_its_own() -> None:
    gone = Difference("pods", "a/b", "link eth0", "veth", "", "it is missing", Link("eth0"))
    route = Route(ip_network("0.0.0.0/0"), "eth0")
    lost = Difference("pods", "a/b", "route 0.0.0.0/0", "via x", "", "it is missing", route)
    others = replace(lost, of="a/c")
    found = check_differences(Observed(0.0, differences=(gone, lost, others)))
    assert [(f.where, f.fixable) for f in found] == [("a/b", False), ("a/c", True)]


def test_of_many_differences_the_number_is_given() -> None:
    many = tuple(
        Difference("routes", "n", f"route {n}", "x", "", f"{n} is missing") for n in range(25)
    )
    *named, more = check_differences(Observed(0.0, differences=many))
    assert (len(named), more.what) == (20, "5 more objects are not as planned")


@pytest.mark.parametrize(
    ("used", "severity"),
    [(0, None), (899, None), (900, Severity.DEGRADED), (980, Severity.BROKEN)],
)
def test_tables_are_scarce_before_they_are_full(used: int, severity: Severity | None) -> None:
    level = Level("tracked connections", used, 1000, "net.netfilter.nf_conntrack_max")
    found = [f.severity for f in check_levels(Observed(0.0, levels=(level,)))]
    assert found == ([] if severity is None else [severity])


def test_a_full_disk_is_broken() -> None:
    assert list(check_disk(Observed(0.0, disk=Disk(Path("/var"))))) == []
    for disk, state in (
        (Disk(Path("/var"), 5), "full"),
        (Disk(Path("/var"), 0, True), "read-only"),
    ):
        [found] = check_disk(Observed(0.0, disk=disk))
        assert found.severity is Severity.BROKEN
        assert found.what.startswith(f"the file system of /var is {state}: new pods get no address")


def test_stale_connections_are_counted() -> None:
    flows = tuple(
        StaleFlow(ip_address("192.0.2.11"), port, ip_address("10.244.1.9")) for port in (53, 54)
    )
    [found] = check_stale_flows(Observed(0.0, stale_flows=flows))
    assert "to 192.0.2.11 port 53 (and 1 more) leads to 10.244.1.9" in found.what
    assert found.fixable


def test_symptoms_of_a_pod() -> None:
    probe = PodProbe(
        "default/web", (("node-2", ip_address("10.244.2.0")),), ("10.96.0.10",), name="default/web"
    )
    path, dns = check_probes(Observed(0.0, probe=probe))
    assert path.what.startswith("default/web gets no answer from node-2, which answers this node")
    assert path.severity is Severity.DEGRADED
    assert "`podwirectl trace default/web 10.96.0.10:53/udp`" in dns.do
    ending = Verdict(False, "packets end at hop 5, node, forward: dropped")
    probe = replace(probe, trace=ending, servers=())
    [path] = check_probes(Observed(0.0, probe=probe))
    assert path.what.endswith(": packets end at hop 5, node, forward: dropped")
    assert path.severity is Severity.BROKEN
    lost = Verdict(False, "packets left by eth0; nothing came back", is_located=False)
    [path] = check_probes(Observed(0.0, probe=replace(probe, trace=lost)))
    assert path.severity is Severity.DEGRADED
    assert dns.what == "DNS is mute: default/web gets no answer from 10.96.0.10"


DENIED = PermissionError(errno.EACCES, "Permission denied")
STORE = Path("/var/lib/podwire/podwire.db")


def denied_store() -> StoreError:
    error = from_os(STORE, DENIED)
    error.__cause__ = DENIED
    return error


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (DENIED, "run as root, on the node"),
        (KernelError("list", "rules", errno.EPERM), "run as root, on the node"),
        (denied_store(), "run as root, on the node"),
        (KernelError("list", "routes", errno.ENOBUFS), "run `podwirectl doctor` again"),
        (damaged(STORE, "not a database"), "let any pod of the node start or stop"),
    ],
)
def test_what_could_not_be_read_has_the_remedy_of_its_cause(error: Exception, remedy: str) -> None:
    unreadable = {"rules": error, "ranges": error, "links": OSError(errno.EIO, "other")}
    found = list(check_unread(Observed(0.0, unreadable=unreadable)))
    assert [f.what.partition(":")[0] for f in found] == [
        "rules, ranges could not be read",
        "links could not be read",
    ]
    assert found[0].do.startswith(remedy)
