"""Outages: one record at the beginning, one at the end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from daemon.journal import MIN_BYTES, Journal, Record, read
from daemon.outages import FailedCalls, Outages


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path) -> Journal:
    return Journal(path, MIN_BYTES)


def records(path: Path) -> list[tuple[str, str]]:
    return [(r.action, r.object) for r in read(path)] if path.exists() else []


def test_an_outage_has_a_beginning_and_an_end(journal: Journal, path: Path) -> None:
    outages = Outages(journal, "peer")
    outages.update({})
    assert records(path) == []
    outages.update({"node-2": "down", "node-3": "mtu"})
    outages.update({"node-2": "another reason", "node-3": "mtu"})
    outages.update({"node-3": "mtu"})
    assert records(path) == [
        ("failed", "peer node-2"), ("failed", "peer node-3"), ("ended", "peer node-2"),
    ]  # fmt: skip
    ended: Record = [*read(path)][-1]
    assert ended.cause == "after 0s: down"
    outages.update({"node-2": "again", "node-3": "mtu"})
    assert records(path)[-1] == ("failed", "peer node-2")


@pytest.mark.parametrize("step", [-86400, 86400])
def test_a_step_of_the_wall_clock_makes_no_outage_longer_or_shorter(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    outages = Outages(journal, "peer")
    outages.update({"node-2": "down"})
    before = time.time
    monkeypatch.setattr(time, "time", lambda: before() + step)
    outages.update({})
    assert [*read(path)][-1].cause == "after 0s: down"


def test_of_many_at_once_the_number_is_recorded(journal: Journal, path: Path) -> None:
    Outages(journal, "node", began="refused").update({f"{n:03}": "taken" for n in range(100)})
    found = records(path)
    assert len(found) == 33
    assert found[-1] == ("refused", "68 more of node")


def counts(done: int, **codes: int) -> dict[str, int]:
    return {"0": done, "11": 0, "100": 0} | {name.strip("_"): n for name, n in codes.items()}


def test_failed_calls_are_over_after_a_success_and_a_while(journal: Journal, path: Path) -> None:
    calls = FailedCalls(journal)
    calls.note(counts(5), 0.0)
    assert records(path) == []
    calls.note(counts(5, _100=1), 10.0)
    calls.note(counts(5, _100=3), 20.0)
    [began] = read(path)
    assert (began.action, began.object) == ("failed", "ADD with error 100")
    assert "exhausted" in began.cause
    calls.note(counts(5, _100=3), 100.0)  # no call succeeded
    calls.note(counts(6, _100=4), 101.0)  # another failed just now
    calls.note(counts(7, _100=4), 130.0)
    assert len(records(path)) == 1
    calls.note(counts(7, _100=4), 132.0)
    assert records(path)[1:] == [("ended", "ADD with error 100")]
    calls.note(counts(8, _100=4, _11=1), 133.0)
    assert records(path)[2:] == [("failed", "ADD with error 11")]


def test_the_counters_are_read_once_a_second(journal: Journal) -> None:
    calls = FailedCalls(journal)
    calls.note(counts(0), 50.0)
    assert not calls.is_due(50.9)
    assert calls.is_due(51.0)
