"""What is told of repairs and failures: each, until they are too many."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.journal import MIN_BYTES, Journal, read
from daemon.log import Log
from daemon.routing.backoff import REMIND, STUBBORN
from daemon.routing.reporter import Teller


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def teller(tmp_path: Path, clock: Clock) -> Teller:
    return Teller(Journal(tmp_path / "journal", MIN_BYTES), Log(), clock)


def test_a_quarrel_is_counted_and_told_once_a_minute(
    teller: Teller, clock: Clock, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(400):  # 100 seconds
        clock.now += 0.25
        teller.put_right("k", "restored", "route P", "removed by pid 1 (ip)")
    lines = capfd.readouterr().err.splitlines()
    warnings = [line for line in lines if " warning " in line]
    assert len(lines) == STUBBORN - 1 + 2
    assert f"removed by pid 1 (ip), {STUBBORN} times now" in warnings[0]
    assert f"removed by pid 1 (ip), {STUBBORN + REMIND * 4:.0f} times now" in warnings[1]
    records = list(read(tmp_path / "journal"))
    assert [r.action for r in records] == ["restored"] * (STUBBORN - 1) + ["found"] * 2
    assert records[-1].cause.startswith("removed by pid 1 (ip), 248 times now")


def test_a_quarrel_about_thousands_is_one_line(
    teller: Teller, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(40):
        clock.now += 0.25
        told = teller.count((n, f"route {n}", "removed") for n in range(3000))
    assert told == set()
    [line] = capfd.readouterr().err.splitlines()
    assert "route 0 (and 2999 more): removed, 8 times now" in line


def test_a_journal_that_cannot_be_written_is_told_in_the_log(
    tmp_path: Path, clock: Clock, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path
    teller = Teller(Journal(path, MIN_BYTES), Log("error"), clock)
    for _ in range(50):
        teller.write("added", "route P", "the plan")
    [line] = capfd.readouterr().err.splitlines()
    assert f"the journal cannot be written: {path}: Is a directory" in line
    assert teller.error.startswith("the journal cannot be written")
