"""The journal: what was written is read, whatever ended the writer, and the file stays bounded."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.journal import (
    MIN_BYTES,
    Action,
    Journal,
    Record,
    decode,
    encode,
    previous_file,
    read,
    render_time,
)
from tests import ROOT

# Surrogates too: names that come from the kernel need not be UTF-8.
TEXTS = st.text(st.characters(codec=None), max_size=40)
MICROS = st.integers(0, 4_000_000_000_000_000)
RECORDS = st.builds(
    Record,
    MICROS.map(lambda micros: micros / 1_000_000),
    st.sampled_from(get_args(Action)),
    TEXTS,
    TEXTS,
    TEXTS,
    TEXTS,
)


def numbered(count: int, first: int = 0) -> list[Record]:
    return [
        Record(1000.0 + n, "added", f"route 10.244.{n}.0/24", "node joined", "", f"via {n}")
        for n in range(first, first + count)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def write(path: Path, *records: Record, max_bytes: int = 1 << 24) -> None:
    with closing(Journal(path, max_bytes)) as journal:
        journal.write(records)
        assert journal.fault == ""


@given(RECORDS)
def test_a_line_is_read_back(record: Record) -> None:
    line = encode(record)
    assert line.count(b"\n") == 1
    assert decode(line) == record


@given(st.text(st.characters(codec=None), min_size=500, max_size=900))
def test_the_longest_line_fits_half_of_the_smallest_file(text: str) -> None:
    line = encode(Record(0.0, "refused", text, text, text, text))
    assert len(line) < MIN_BYTES // 2
    assert decode(line) is not None
    worst = "\U0001f600" * 10_000
    assert len(encode(Record(0.0, "refused", worst, worst, worst, worst))) < MIN_BYTES // 2


@given(st.binary(max_size=200))
def test_garbage_is_no_record(line: bytes) -> None:
    assert decode(line) is None


@pytest.mark.parametrize(
    "line",
    [
        "null", "[]", "1e999", "{}", '{"time": 5}', "[" * 100_000,
        '{"time":"2026-11-21T10:00:00","action":"a","object":"","cause":"","before":"","after":""}',
        '{"time":"2026-11-21T10:00:00Z","action":"a","object":1,"cause":"","before":"","after":""}',
    ],
)  # fmt: skip
def test_json_that_is_no_record(line: str) -> None:
    assert decode(line.encode()) is None


def test_time_is_written_for_people() -> None:
    assert render_time(1_795_255_200.25) == "2026-11-21T10:00:00.250000Z"
    assert json.loads(encode(Record(0.9999999, "added", "x")))["time"].endswith("01.000000Z")


def test_nothing_written_is_nothing_to_read(path: Path) -> None:
    assert list(read(path)) == []
    with closing(Journal(path, 1 << 20)) as journal:
        journal.write([])
        assert not path.exists()


def test_only_root_reads_the_file(path: Path) -> None:
    write(path, *numbered(1))
    assert path.stat().st_mode & 0o777 == 0o600


def test_since_and_object_select(path: Path) -> None:
    write(path, *numbered(30), Record(5000.0, "changed", "link podwire-vxlan"))
    assert [r.time for r in read(path, since=1028.0)] == [1028.0, 1029.0, 5000.0]
    assert [r.object for r in read(path, wanted="Podwire-VXLAN")] == ["link podwire-vxlan"]
    assert [r.time for r in read(path, since=1005.0, wanted="10.244.2")] == [
        *(1020.0 + n for n in range(10)),
    ]


def test_cut_off_at_every_byte(path: Path) -> None:
    """As a crash may leave it: whole lines are there, and the next writer loses none of its own."""
    old, new = numbered(3), numbered(2, first=10)
    write(path, *old)
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = data[: length + 1].count(b"\n")  # the newline alone may be missing
        assert list(read(path)) == old[:whole]
        write(path, *new)
        assert list(read(path)) == [*old[:whole], *new], length


@given(st.lists(st.binary(max_size=60), max_size=5), st.integers(0, 3))
def test_damage_costs_the_damaged_lines_alone(
    tmp_path_factory: pytest.TempPathFactory, garbage: list[bytes], place: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    records = numbered(3)
    lines = [encode(record) for record in records]
    lines[place:place] = [item + b"\n" for item in garbage]
    path.write_bytes(b"".join(lines))
    assert list(read(path)) == records


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(0, 3 * MIN_BYTES))
def test_two_files_never_exceed_the_bound(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], max_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    bound, written = max(max_bytes, MIN_BYTES), 0
    with closing(Journal(path, max_bytes)) as journal:
        for size in batches:
            journal.write(numbered(size, first=written))
            written += size
            files = [file for file in (path, previous_file(path)) if file.exists()]
            assert sum(file.stat().st_size for file in files) <= bound
            assert sorted(path.parent.iterdir()) == sorted(files)
    times = [record.time for record in read(path)]
    # What is left is the newest, without a gap, and at least half of what may be there.
    assert times == [1000.0 + n for n in range(written - len(times), written)]
    kept = sum(file.stat().st_size for file in files)
    assert len(times) == written or kept > bound // 2 - 400


def test_a_file_from_a_larger_bound_makes_room(path: Path) -> None:
    write(path, *numbered(3000))
    write(path, *numbered(2000, first=3000), max_bytes=MIN_BYTES)
    sizes = [file.stat().st_size for file in (path, previous_file(path))]
    assert sum(sizes) <= MIN_BYTES


def test_a_journal_deleted_by_hand_begins_anew(path: Path) -> None:
    with closing(Journal(path, 1 << 20)) as journal:
        journal.write(numbered(2))
        path.unlink()
        journal.write(numbered(1, first=5))
    assert list(read(path)) == numbered(1, first=5)


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "shadow"
    other.write_text("precious")
    path.symlink_to(other)
    with closing(Journal(path, 1 << 20)) as journal:
        journal.write(numbered(1))
        assert str(path) in journal.fault
    assert other.read_text() == "precious"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow beyond that: write(2) is cut short there, as by a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_and_survived(path: Path) -> None:
    with closing(Journal(path, 1 << 20)) as journal:
        journal.write(numbered(5))
        with largest_file(path.stat().st_size + 150):
            journal.write(numbered(4, first=5))
            assert str(path) in journal.fault
            journal.write(numbered(4, first=9))
            assert str(path) in journal.fault
            journal.write(())
            assert str(path) in journal.fault
        journal.write(())
        assert journal.fault == ""
        journal.write(numbered(1, first=50))
    records = list(read(path))
    assert records[:5] == numbered(5)
    assert records[-1:] == numbered(1, first=50)
    lost = next(record for record in records if record.object == "journal")
    assert "8 records" in lost.cause


def test_read_while_it_is_written(path: Path) -> None:
    """A reader sees the newest records in order without a gap, rotations or not."""
    done = threading.Event()

    def fill() -> None:
        with closing(Journal(path, 4 * MIN_BYTES)) as journal:
            for n in range(0, 12_000, 7):
                journal.write(numbered(7, first=n))
        done.set()

    writer = threading.Thread(target=fill)
    writer.start()
    rounds = 0
    while not done.is_set():
        times = [record.time for record in read(path)]
        assert all(later - earlier == 1.0 for earlier, later in pairwise(times))
        rounds += 1
    writer.join()
    assert rounds > 3
    assert previous_file(path).exists()


KILLED = """
import itertools, sys
from pathlib import Path
from daemon.journal import Journal, Record
journal = Journal(Path(sys.argv[1]), 1 << 24)
for n in itertools.count():
    journal.write([Record(float(3 * n + k), "added", "x" * 50) for k in range(3)])
    print(n, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_had_written(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 200:
            process.kill()
            break
    said = 200 + len(process.stdout.readlines())
    process.wait()
    process.stdout.close()
    times = [record.time for record in read(path)]
    assert len(times) >= 3 * said
    assert times == [float(n) for n in range(len(times))]
    write(path, Record(7e8, "found", "after"))
    assert [record.object for record in read(path)][-1] == "after"


def test_writers_of_several_threads(path: Path) -> None:
    with closing(Journal(path, 1 << 24)) as journal:

        def work(number: int) -> None:
            for n in range(100):
                journal.write([Record(float(n), "added", f"writer {number}")] * 3)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(4):
        mine = [record.time for record in read(path, wanted=f"writer {number}")]
        assert mine == [float(n) for n in range(100) for _ in range(3)]
    assert len(path.read_bytes().splitlines()) == 1200


def test_no_descriptor_is_left(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write(path, *numbered(3000), max_bytes=MIN_BYTES)
    reading = read(path)
    next(reading)
    assert len(os.listdir("/proc/self/fd")) > before
    reading.close()
    assert len(os.listdir("/proc/self/fd")) == before
