"""When the node's attachments are compared: not for each event, and never for others' links."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import cast

import pytest

from daemon.journal import Journal
from daemon.log import Log
from daemon.routing import attachments
from daemon.routing.attachments import GAP, Attachments
from daemon.routing.node_side import LATER, NodeSide, NodeSideReader
from daemon.routing.reporter import Reporter
from kernel.model import RTPROT_PODWIRE, Address, Bridge, Link, Route, Space, Sysctl
from kernel.netlink.monitor import Event
from kernel.netlink.socket import Netlink
from tests.unit.daemon.clusters import settings

OTHERS: list[Event] = [
    Event("link", deleted=False, noun=Link("docker0", "bridge"), port=0),
    Event("link", deleted=True, noun=Link("veth1234567", "veth"), port=0),
    Event("address", deleted=True, noun=Address("docker0", ip_interface("172.17.0.1/16")), port=9),
    Event("route", deleted=True, noun=Route(ip_network("10.1.0.0/16"), "eth0"), port=9),
    Event("netconf", deleted=False, noun=Sysctl("net/ipv4/conf/docker0/forwarding", "0"), port=0),
]
OURS: list[Event] = [
    Event("link", deleted=False, noun=Link("cni0", "bridge", up=False), port=0),
    Event("address", deleted=True, noun=Address("cni0", ip_interface("10.89.0.1/24")), port=9),
    Event(
        "route",
        deleted=True,
        noun=Route(ip_network("10.88.0.2/32"), "cni0", protocol=RTPROT_PODWIRE),
        port=9,
    ),
    Event("netconf", deleted=False, noun=Sysctl("net/ipv4/conf/cni0/forwarding", "0"), port=0),
]
SIDE = NodeSide({}, {"cni0": Bridge("cni0")}, {}, {"cni0": Space((Link("cni0", "bridge"),))})


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attachments, "time", clock)
    return clock


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[Collection[str] | None]:
    """The links whose settings each comparison read."""
    done: list[Collection[str] | None] = []

    def read(
        _reader: NodeSideReader, _own: Bridge | None, with_settings: Collection[str] | None
    ) -> NodeSide:
        done.append(None if with_settings is None else set(with_settings))
        return SIDE

    monkeypatch.setattr(NodeSideReader, "read", read)
    return done


@pytest.fixture
def reconciler(tmp_path: Path, comparisons: list[object], clock: Clock) -> Attachments:
    """One that has compared everything after its start."""
    reporter = Reporter(Journal(tmp_path / "journal", 1 << 16), Log())
    made = Attachments(cast("Netlink", None), settings(), reporter)
    assert made.reconcile(None) is None
    assert comparisons == [None]
    comparisons.clear()
    clock.now += GAP
    return made


def test_events_of_other_links_wake_nothing(
    reconciler: Attachments, comparisons: list[object], clock: Clock
) -> None:
    for event in OTHERS * 100:
        reconciler.receive(event)
        clock.now += GAP
        assert reconciler.reconcile(None) is None
    assert comparisons == []


@pytest.mark.parametrize("event", OURS, ids=lambda event: str(event.kind))
def test_an_event_of_a_link_that_matters_wakes_one_comparison(
    reconciler: Attachments, comparisons: list[object], event: Event
) -> None:
    reconciler.receive(event)
    assert reconciler.reconcile(None) is None
    assert comparisons == [{"cni0"} if event.kind == "netconf" else set()]


def test_a_storm_is_compared_five_times_a_second(
    reconciler: Attachments, comparisons: list[object], clock: Clock
) -> None:
    for _ in range(1000):
        reconciler.receive(OURS[0])
        reconciler.reconcile(None)
        clock.now += 0.001
    assert len(comparisons) == 5


def test_pods_that_come_are_compared_a_moment_later_together(
    reconciler: Attachments, comparisons: list[object], clock: Clock
) -> None:
    for number in range(100):
        link = Link(f"pw{number:011x}", "veth", up=False)
        reconciler.receive(Event("link", deleted=False, noun=link, port=0))
    assert reconciler.reconcile(None) == pytest.approx(LATER)
    assert comparisons == []
    clock.now += LATER
    assert reconciler.reconcile(None) is None
    assert len(comparisons) == 1
