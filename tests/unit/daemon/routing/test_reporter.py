"""What is reported of repairs and failures: each, until they are too many."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from daemon.journal import MIN_BYTES, Journal, read
from daemon.log import Log
from daemon.model import Refusal
from daemon.routing.backoff import FLAPPING, REMIND
from daemon.routing.reporter import Refusals, Reporter, describe_event, name_author
from kernel.model import Link
from kernel.netlink.monitor import Event
from tests.unit.daemon.routing.test_peer_routes import peer_entries


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporter(tmp_path: Path, clock: Clock) -> Reporter:
    return Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log(), clock)


def test_flapping_is_counted_and_reported_once_a_minute(
    reporter: Reporter, clock: Clock, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(400):  # 100 seconds
        clock.now += 0.25
        reporter.report_repair("k", "route P", "removed by pid 1 (ip)")
    lines = capfd.readouterr().err.splitlines()
    warnings = [line for line in lines if " warning " in line]
    assert len(lines) == FLAPPING - 1 + 2
    assert f"removed by pid 1 (ip), {FLAPPING} times now" in warnings[0]
    assert f"removed by pid 1 (ip), {FLAPPING + REMIND * 4:.0f} times now" in warnings[1]
    records = list(read(tmp_path / "journal"))
    assert [r.action for r in records] == ["restored"] * (FLAPPING - 1) + ["found"] * 2
    assert records[-1].cause.startswith("removed by pid 1 (ip), 248 times now")


def test_thousands_of_flapping_objects_are_one_line(
    reporter: Reporter, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(40):
        clock.now += 0.25
        each = reporter.count_repairs((n, f"route {n}", "removed") for n in range(3000))
    assert each == set()
    [line] = capfd.readouterr().err.splitlines()
    assert "route 0 (and 2999 more): removed, 8 times now" in line


def test_a_journal_that_cannot_be_written_is_reported_in_the_log(
    tmp_path: Path, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path
    reporter = Reporter(Journal(path, MIN_BYTES), Log("error"), clock)
    for _ in range(50):
        reporter.report_change("added", "route P", "the plan")
    [line] = capfd.readouterr().err.splitlines()
    assert f"the journal cannot be written: {path}: Is a directory" in line
    assert reporter.error.startswith("the journal cannot be written")


def refusals(count: int, why: str = "it overlaps") -> list[Refusal]:
    return [Refusal(f"n{i}", IPv4Network((i << 8, 24)), why) for i in range(count)]


def test_thousands_of_refusals_are_summed_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported = Refusals(Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log()))
    reported.report(refusals(3000), ())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 9
    assert "refused 0.0.0.0/24 of n0: it overlaps" in lines[0]
    assert "refused 2992 more prefixes" in lines[-1]
    records = list(read(tmp_path / "journal"))
    assert len(records) == 65
    assert {r.action for r in records} == {"refused"}
    assert (records[0].object, records[0].cause) == ("node n0 0.0.0.0/24", "it overlaps")
    assert records[-1].object == "2936 more prefixes"


def test_only_new_refusals_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reported = Refusals(Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log()))
    reported.report(refusals(3), ())
    capfd.readouterr()
    reported.report([*refusals(2), *refusals(1, "another why")], ())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "refused 0.0.0.0/24 of n0: another why" in lines[0]
    assert "1 prefixes are no longer refused" in lines[1]
    assert len(list(read(tmp_path / "journal"))) == 4


def test_the_kernel_and_processes_are_named() -> None:
    assert name_author(0) == "the kernel"
    assert name_author(1).startswith("pid 1 (")
    assert name_author((1 << 22) + 1) == f"a process (netlink port {(1 << 22) + 1})"
    assert name_author(1 << 22) == f"pid {1 << 22}"  # no such process


def test_no_author_is_named_where_the_kernel_names_none() -> None:
    """The kernel leaves out who removed a link; it did not do so itself."""
    fdb, neighbour, _route = peer_entries(2, 0)
    nobody = Event("link", True, Link("vx"), 0)
    assert describe_event("removed", nobody) == "removed"
    assert describe_event("removed", Event("fdb", True, fdb, 0)) == "removed"
    assert (
        describe_event("removed", Event("neighbour", True, neighbour, 0)) == "removed by the kernel"
    )
    echoed = Event("link", True, Link("vx"), 1 << 23)
    assert describe_event("removed", echoed) == f"removed by a process (netlink port {1 << 23})"
