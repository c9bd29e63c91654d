"""Packets of pods that policy rules take away, as a real kernel with such rules answers."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.model import Desired
from daemon.routing.diversions import Diversions
from daemon.routing.host_state import HostState, UnderlayPaths, affects_plan, read_host_state
from daemon.routing.planner import Planner
from daemon.routing.reporter import Reporter
from kernel.netlink.monitor import Monitor
from kernel.netlink.socket import Netlink
from tests.unit.cni_plugin.namespaces import elsewhere
from tests.unit.daemon.clusters import cluster, node, settings

MADE = """\
link set lo up
link add eth0 type veth peer name x0
link add tun0 type veth peer name x1
link add cni0 type bridge
link add pod0 type veth peer name x2
link set pod0 master cni0
link set cni0 up
link set pod0 up
link set x2 up
link set eth0 up
link set x0 up
link set tun0 up
link set x1 up
addr add 192.0.2.1/24 dev eth0
addr add 10.244.1.1/24 dev cni0
route add 10.244.2.0/23 dev tun0 table 52
route add 10.244.1.0/24 dev tun0 table 53
"""
ROUTES = (
    "route add 10.244.2.0/24 via 192.0.2.2 dev eth0 proto 113",
    "route add 10.244.3.0/24 via 192.0.2.3 dev eth0 proto 113",
)
CLUSTER = cluster(node(1), node(2), node(3))


class Checked:
    """A namespace with routes to two peers, and what looks packets up."""

    def __init__(self, nl: Netlink, events: Monitor, folder: Path) -> None:
        self.nl, self.events, self.journal = nl, events, folder / "journal.jsonl"
        self.reporter = Reporter(Journal(self.journal, MIN_BYTES), Log())
        self.diversions = Diversions(nl, events, self.reporter)
        self.planner = Planner(settings("backend: host-gw\nconflist: {mode: bridge}"))

    def fault(self) -> str:
        """What a check of everything reports."""
        desired, host = self.plan()
        self.diversions.expect()
        return self.settle(desired, host)

    def settle(self, desired: Desired, host: HostState) -> str:
        """Check as often as the daemon does until something is reported, or all is well."""
        while self.diversions._is_due:
            self.events.read()
            self.check(desired, host)
        return self.reporter.faults["paths"]

    def plan(self) -> tuple[Desired, HostState]:
        host = read_host_state(self.nl)
        paths = UnderlayPaths().read(self.nl, CLUSTER.nodes, "node-1")
        desired = self.planner.plan(CLUSTER, host, paths)
        assert len(desired.peers["node-2"]) == 1, desired.refused
        return desired, host

    def check(self, desired: Desired, host: HostState) -> None:
        self.diversions._not_before = 0.0
        self.diversions.check(desired, host)


def ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


@pytest.fixture
def checked(tmp_path: Path) -> Iterator[Checked]:
    with elsewhere(), Netlink() as nl, Monitor() as events:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        ip(*MADE.splitlines(), *ROUTES)
        yield Checked(nl, events, tmp_path)


def test_a_rule_that_takes_packets_is_named_with_beginning_and_end(checked: Checked) -> None:
    assert checked.fault() == ""
    ip("rule add pref 5270 lookup 52")
    text = (
        "packets of pods to 10.244.2.0/24 of node-2 (and to 1 more prefixes) go dev tun0 "
        "by rule 5270: from all lookup 52, not dev eth0"
    )
    assert [checked.fault(), checked.fault()] == [text] * 2
    ip("rule del pref 5270")
    assert [checked.fault(), checked.fault()] == [""] * 2
    assert checked.journal.read_text().count("packets of pods") == 3


def test_what_may_be_repaired_next_is_not_reported(checked: Checked) -> None:
    desired, host = checked.plan()
    checked.diversions.expect()
    deleted = [line.replace("add", "del") for line in ROUTES]
    for _ in range(3):  # deleted again before each lookup, and restored after it
        ip(*deleted)
        checked.check(desired, host)
        ip(*ROUTES)
    assert checked.reporter.faults["paths"] == ""
    ip(*deleted)
    assert "go nowhere" in checked.settle(desired, host)


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("iif cni0 lookup 52", "go dev tun0 by rule 9: from all iif cni0 lookup 52"),
        ("iif cni0 to 10.244.3.0/24 prohibit", "to 10.244.3.0/24 of node-3 go nowhere"),
        ("from 10.244.1.0/24 blackhole", "go nowhere (Invalid argument) by rule 9: from 10.244.1"),
        ("iif eth0 lookup 53", "to this node's pods (and to 1 more prefixes) go dev tun0 by rule"),
    ],
)
def test_rules_for_packets_of_pods_alone(checked: Checked, rule: str, found: str) -> None:
    ip(f"rule add pref 9 {rule}")
    assert found in checked.fault()


def test_settings_that_drop_forwarded_packets_are_named(checked: Checked) -> None:
    Path("/proc/sys/net/ipv4/conf/cni0/forwarding").write_text("0")
    assert checked.fault().endswith("are dropped: net.ipv4.conf.cni0.forwarding is 0")
    Path("/proc/sys/net/ipv4/conf/cni0/forwarding").write_text("1")
    assert checked.fault() == ""
    ip("route add 10.244.1.2 dev tun0")
    Path("/proc/sys/net/ipv4/conf/cni0/rp_filter").write_text("1")
    assert "are dropped: net.ipv4.conf.cni0.rp_filter is 1 (strict)" in checked.fault()


@pytest.mark.parametrize(
    "rule",
    [
        "fwmark 7 lookup 52",
        "from 192.0.2.1 lookup 52",
        "lookup main suppress_prefixlength 0",
        "lookup 99",
        "iif eth0 lookup 52",
    ],
)
def test_rules_for_other_packets_are_no_fault(checked: Checked, rule: str) -> None:
    ip(f"rule add pref 9 {rule}")
    assert checked.fault() == ""


def test_only_rules_ahead_of_the_main_table_count(checked: Checked) -> None:
    ip("rule add pref 40000 lookup 52", "rule add pref 9 fwmark 7 lookup 52")
    assert [rule.priority for rule in read_host_state(checked.nl).rules] == [9]


def test_a_rule_is_an_event_that_affects_plans(checked: Checked) -> None:
    host = read_host_state(checked.nl)
    with Monitor() as monitor:
        ip("rule add pref 9 lookup 52", "rule del pref 9")
        subprocess.run(["ip", "-6", "rule", "add", "pref", "9", "lookup", "52"], check=True)
        events = [event for event in monitor.read() if event.kind == "rule"]
    assert [(e.deleted, str(e.noun)) for e in events] == [
        (False, "9: from all lookup 52"),
        (True, "9: from all lookup 52"),
        (False, "9: from all lookup 52"),
    ]
    assert all(affects_plan(event, host) for event in events)


@pytest.mark.parametrize("probes", ["true", "false"])
def test_a_node_without_pods(checked: Checked, probes: str) -> None:
    """Without probes host-gw gives it no address of its own that pods' packets could come from."""
    health = "" if probes == "true" else "\nhealth: false"
    checked.planner = Planner(settings(f"backend: host-gw{health}"))
    ip("link del cni0")
    desired, _host = checked.plan()
    assert bool(desired.own_routes) == (probes == "true")
    if desired.own_routes:
        ip("route add local 10.244.1.0/32 dev lo table local proto 113")
    assert checked.fault() == ""
    ip("rule add pref 5270 lookup 52")
    assert "by rule 5270" in checked.fault()
