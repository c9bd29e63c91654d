"""What is reported of repairs and failures: each, until they are too many."""

from __future__ import annotations

import time
from ipaddress import IPv4Network
from pathlib import Path
from typing import get_args

import pytest

from daemon.journal import MIN_BYTES, Journal, read
from daemon.log import Log
from daemon.model import Refusal
from daemon.routing.backoff import FLAPPING, GAP, PAUSE_MAX, REMIND
from daemon.routing.reporter import (
    OVERLAP_AGAIN,
    Faults,
    Part,
    Refusals,
    Reporter,
)
from daemon.status import PARTS


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
    assert [r.action for r in records] == ["restored"] * (FLAPPING - 1) + ["flapping"] * 2
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
    assert len(lines) == 33
    assert "refused node n0 0.0.0.0/24: it overlaps" in lines[0]
    assert "refused 2968 more of node" in lines[-1]
    records = list(read(tmp_path / "journal"))
    assert len(records) == 33
    assert {r.action for r in records} == {"refused"}
    assert (records[0].object, records[0].cause) == ("node n0 0.0.0.0/24", "it overlaps")
    assert records[-1].object == "2968 more of node"


def test_only_new_refusals_are_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reported = Refusals(Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log()))
    reported.report(refusals(3), ())
    capfd.readouterr()
    reported.report([*refusals(2), Refusal("n9", IPv4Network("10.9.0.0/24"), "it is taken")], ())
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "refused node n9 10.9.0.0/24: it is taken" in lines[0]
    assert "ended node n2 0.0.2.0/24: after 0s: it overlaps" in lines[1]
    assert [r.action for r in read(tmp_path / "journal")] == ["refused"] * 4 + ["ended"]


# -- what is wrong now


def test_a_fault_is_logged_when_it_is_new_and_stays_the_last_error(
    reporter: Reporter, capfd: pytest.CaptureFixture[str]
) -> None:
    for text in ("disk full", "disk full", "", "disk full"):
        reporter.report_fault("conflist", text)
    lines = capfd.readouterr().err.splitlines()
    assert [line.endswith("disk full") for line in lines] == [True, True]
    assert reporter.faults["conflist"] == reporter.faults.last_error == "disk full"
    reporter.report_fault("conflist", "")
    assert (reporter.faults["conflist"], reporter.faults.last_error) == ("", "disk full")


def test_an_error_is_over_once_and_stays_known() -> None:
    faults = Faults()
    faults.note_end()
    assert faults.last_error_over == 0
    faults.note_error("odd")
    assert (faults.last_error, faults.last_error_over) == ("odd", 0)
    faults.note_end()
    over = faults.last_error_over
    assert over >= faults.last_error_time > 0
    faults.note_end()
    assert (faults.last_error, faults.last_error_over) == ("odd", over)
    faults.note_error("odd")
    assert faults.last_error_over == 0


def test_each_part_has_its_fault() -> None:
    faults = Faults()
    assert (faults.node, faults.others, faults.are_over) == ("", {}, True)
    for part in get_args(Part):
        assert faults.set(part, "odd")
        assert not faults.set(part, "odd")
        is_node = part in ("plan", "settings", "device", "rules", "bridge", "policies")
        assert faults.node == ("odd" if is_node else "")
        assert faults.others == ({} if is_node else {part: "odd"})
        harmless = ("limit", "metrics", "pods", "ranges", "tables", "unchecked", "unwired")
        assert faults.are_over == (part in harmless)
        assert not faults.set(part, "")
        assert (faults.node, faults.others, faults.are_over) == ("", {}, True)


def test_every_part_has_a_finding() -> None:
    faults = Faults()
    for part in get_args(Part):
        faults.set(part, "odd")
    assert faults.others.keys() == PARTS.keys()


def test_a_failure_is_logged_once_a_minute_and_counted_each_time(
    reporter: Reporter, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(10):
        reporter.report_failure("odd")
        reporter.report_failure("odder")
        clock.now += 10.0
        reporter.forget_calm()
    lines = [line.rpartition(" ")[2] for line in capfd.readouterr().err.splitlines()]
    assert lines == ["odd", "odder"] * 2
    assert (reporter.error, reporter.counts.errors) == ("odd", 20)


def test_an_object_waits_after_its_repair_and_after_a_long_batch(
    reporter: Reporter, clock: Clock
) -> None:
    assert reporter.pause_before("k") == 0
    reporter.count_repairs([("k", "route P", "removed")])
    assert reporter.pause_before("k") == GAP
    began, clock.now = clock.now, clock.now + 10.0
    reporter.note_batch(began)
    assert reporter.pause_before("k") == PAUSE_MAX
    assert reporter.pause_before("other") == 0


def test_overlaps_are_reported_when_they_come_and_not_each_time_they_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    reports = Refusals(Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log()))
    [overlap] = refusals(1, "overlaps 0.0.0.0/8 on tun0 of this node")
    reports.report((), [overlap])
    found = "found node n0 0.0.0.0/24: overlaps 0.0.0.0/8 on tun0 of this node; kept, because it"
    [line] = capfd.readouterr().err.splitlines()
    assert found in line
    for _ in range(100):  # another route that comes and goes
        now += 1.0
        reports.report((), [])
        reports.report((), [overlap])
    assert capfd.readouterr().err == ""
    reports.report((), [])
    now += OVERLAP_AGAIN
    reports.report((), [overlap])
    assert found in capfd.readouterr().err
    assert [r.action for r in read(tmp_path / "journal")] == ["found", "found"]


def test_many_overlaps_are_summed_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reports = Refusals(Reporter(Journal(tmp_path / "journal", MIN_BYTES), Log()))
    reports.report((), refusals(50))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 33
    assert "found 18 more prefixes: see" in lines[-1]
