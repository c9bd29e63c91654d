"""`podwirectl history`: the journal as a table and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from daemon.journal import Journal, Record
from tests import ROOT
from tests.unit.ctl.conftest import Run


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "journal.jsonl"
    now = time.time()
    records = [
        Record(1_605_952_800.0, "added", "route 10.244.2.0/24", "node-2 joined", "", "via X"),
        Record(now - 3000, "restored", "route 10.244.2.0/24", "pid 7 (ip)", "via X", "via X"),
        Record(now - 3, "changed", "link podwire-vxlan", "MTU", "mtu 1450", "mtu 1430"),
    ]
    with closing(Journal(path, 1 << 20)) as writer:
        writer.write(records)
    return path


def test_history_is_a_table(run: Run, config: Path, journal: Path) -> None:
    status, out, err = run("history", "--config", config)
    assert (status, err) == (0, "")
    header, *rows = out.splitlines()
    assert header.split() == ["TIME", "ACTION", "OBJECT", "CAUSE", "CHANGE"]
    assert len(rows) == 3
    assert rows[0].startswith("2020-11-21T10:00:00.000Z  added ")
    assert rows[0].endswith("  node-2 joined  via X")
    assert rows[1].endswith("  pid 7 (ip)     via X")
    assert rows[2].endswith("  MTU            mtu 1450 -> mtu 1430")


def test_what_is_gone_is_said_so(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with closing(Journal(path, 1 << 20)) as writer:
        writer.write([Record(1.0, "removed", "route R", "", "via X"), Record(2.0, "found", "o")])
    _status, out, _err = run("history", "--file", path)
    assert [row.split()[3:] for row in out.splitlines()[1:]] == [["R", "-", "was", "via", "X"],
                                                                ["-", "-"]]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ([], 3),
        (["--since", "10m"], 1),
        (["--since", "2h"], 2),
        (["--since", "2020-11-21T10:00"], 3),
        (["--since", "2020-11-21T10:00:01Z"], 2),
        (["--since", "2020-11-21T12:00:01+02:00"], 2),
        (["--object", "10.244.2"], 2),
        (["--object", "VXLAN", "--since", "1m"], 1),
        (["--object", "10.244.9"], 0),
    ],
)
def test_history_for_programs(run: Run, journal: Path, words: list[str], count: int) -> None:
    status, out, _err = run("history", "--file", journal, "-o", "json", *words)
    assert status == 0
    records = json.loads(out)
    assert len(records) == count
    for record in records:
        assert set(record) == {"time", "action", "object", "cause", "before", "after"}


@pytest.mark.parametrize("text", ["", "x", "10", "5w", "-5m", "2026-13-01", "9" * 12 + "s", "٣m"])
def test_a_time_that_is_none(run: Run, journal: Path, text: str) -> None:
    status, _out, err = run("history", "--file", journal, f"--since={text}")
    assert status == 2
    assert "10m" in err


def test_nothing_found_is_said_beside_the_output(run: Run, journal: Path, tmp_path: Path) -> None:
    status, out, err = run("history", "--file", journal, "--object", "nothing")
    assert (status, out) == (0, "")
    assert f"no such change in {journal}" in err
    status, out, err = run("history", "--file", tmp_path / "none")
    assert (status, out) == (0, "")
    assert "there is no journal" in err


def test_a_journal_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    status, _out, err = run("history", "--file", tmp_path)
    assert status == 1
    assert str(tmp_path) in err


def test_a_terminal_obeys_nothing_of_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with closing(Journal(path, 1 << 20)) as writer:
        writer.write([Record(1.0, "found", "link \x1b[2Jx\n", "\udce4", "", "\u202e")])
    _status, out, _err = run("history", "--file", path)
    assert out.count("\n") == 2
    assert out.replace("\n", "").isprintable()
    assert "\\x1b[2Jx\\n" in out


def test_a_reader_that_goes_away_is_no_error(journal: Path) -> None:
    with closing(Journal(journal, 1 << 24)) as writer:
        writer.write([Record(1.0, "added", "x" * 100)] * 5000)
    argv = [sys.executable, "-m", "ctl", "history", "--file", str(journal), "-o", "json"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.wait()
    process.stderr.close()


def test_a_file_that_is_no_journal_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "podwire.db"
    for path in (tmp_path, tmp_path / "podwire.db"):
        if path != tmp_path:
            path.write_bytes(b"SQLite format 3\0" * 1000)
        for words in ([], ["-o", "json"]):
            status, out, err = run("history", "--file", path, *words)
            assert (status, out) == (1, "")
            assert f"{path} is no journal of podwired" in err
    path.write_bytes(b"")
    assert run("history", "--file", path)[0] == 0
