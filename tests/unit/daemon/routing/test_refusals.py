"""Refused prefixes are told, and thousands of them do not fill log and journal."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from daemon.journal import MIN_BYTES, Journal, read
from daemon.log import Log
from daemon.model import Refusal
from daemon.routing.refusals import Refusals
from daemon.routing.reporter import Teller


def refusals(count: int, why: str = "it overlaps") -> list[Refusal]:
    return [Refusal(f"n{i}", IPv4Network((i << 8, 24)), why) for i in range(count)]


def test_thousands_are_summed_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = Refusals(Teller(Journal(tmp_path / "journal", MIN_BYTES), Log()))
    told.tell(refusals(3000))
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 9
    assert "refused 0.0.0.0/24 of n0: it overlaps" in lines[0]
    assert "refused 2992 more prefixes" in lines[-1]
    records = list(read(tmp_path / "journal"))
    assert len(records) == 65
    assert {r.action for r in records} == {"refused"}
    assert (records[0].object, records[0].cause) == ("node n0 0.0.0.0/24", "it overlaps")
    assert records[-1].object == "2936 more prefixes"


def test_only_news_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = Refusals(Teller(Journal(tmp_path / "journal", MIN_BYTES), Log()))
    told.tell(refusals(3))
    capfd.readouterr()
    told.tell([*refusals(2), *refusals(1, "another why")])
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "refused 0.0.0.0/24 of n0: another why" in lines[0]
    assert "1 prefixes are refused no more" in lines[1]
    assert len(list(read(tmp_path / "journal"))) == 4
