"""The status file: whole whenever it is read, and never mistaken for that of a living daemon."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.status import (
    PARTS,
    AnotherDaemon,
    NodeStatus,
    NoStatus,
    Refused,
    StatusFile,
    read_status,
)
from tests import ROOT

GOOD = NodeStatus("node-1", "vxlan", "static", peers=2, wanted=6, in_sync=6, mtu=1450)
TEXTS = st.text(st.characters(codec=None), max_size=20)
STATUSES = st.builds(
    NodeStatus,
    node=TEXTS,
    backend=TEXTS,
    source=TEXTS,
    peers=st.integers(0, 9999),
    wanted=st.integers(0, 9999),
    in_sync=st.integers(0, 9999),
    mtu=st.integers(0, 65535),
    prefixes=st.lists(TEXTS, max_size=3).map(tuple),
    refused=st.lists(st.builds(Refused, TEXTS, TEXTS, TEXTS), max_size=3).map(tuple),
    tolerated=st.lists(st.builds(Refused, TEXTS, TEXTS, TEXTS), max_size=3).map(tuple),
    fault=TEXTS,
    faults=st.dictionaries(TEXTS, TEXTS, max_size=3),
    last_error=TEXTS,
    last_error_time=st.floats(0, 4e9),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "status.json"


@given(STATUSES)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, status: NodeStatus
) -> None:
    path = tmp_path_factory.mktemp("run") / "status.json"
    with closing(StatusFile(path)) as file:
        file.write(status)
        assert read_status(path).status == status


def test_what_is_said_beside_it(path: Path) -> None:
    before = time.time()
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
        found = read_status(path)
        assert before <= found.time <= time.time()
        assert 0 <= found.age <= 60
        assert found.running
        assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_where_nothing_changed(path: Path) -> None:
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
        first = path.stat().st_ino, path.stat().st_mtime_ns
        file.write(replace(GOOD))
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == first
        file.write(replace(GOOD, peers=3))
        assert read_status(path).status.peers == 3


def test_an_orderly_end_takes_the_status_away(path: Path) -> None:
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
    with pytest.raises(NoStatus, match=r"there is no .*status\.json"):
        read_status(path)
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
        assert read_status(path).running


def test_one_daemon_at_a_time(path: Path) -> None:
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
        with pytest.raises(AnotherDaemon, match=r"status\.json\.lock"):
            StatusFile(path)
        assert read_status(path).running


def test_a_reader_does_not_keep_a_daemon_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.status._LOCK_SECONDS", 60.0)
    StatusFile(path).close()
    reader = os.open(path.with_name("status.json.lock"), os.O_RDONLY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    done = threading.Timer(0.1, os.close, [reader])
    done.start()
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
        assert read_status(path).running
    done.join()


def test_the_lock_stays_private_and_in_its_place(path: Path, tmp_path: Path) -> None:
    StatusFile(path).close()
    lock = path.with_name("status.json.lock")
    assert lock.stat().st_mode & 0o777 == 0o600
    lock.unlink()
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"status\.json\.lock"):
        StatusFile(path)
    assert not (tmp_path / "elsewhere").exists()


WRITER = """
import sys, time
from pathlib import Path
from daemon.status import NodeStatus, StatusFile
file = StatusFile(Path(sys.argv[1]))
file.write(NodeStatus("node-1", "vxlan", "static"))
print(flush=True)
time.sleep(600)
"""


def test_the_status_of_a_killed_daemon_is_told_from_a_living_one(path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    process.stdout.readline()
    alive = read_status(path)
    process.kill()
    process.communicate()
    dead = read_status(path)
    assert (alive.running, dead.running) == (True, False)
    assert alive.pid == dead.pid == process.pid
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
        assert read_status(path).running


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b'"x"', b"{}", b"\xff", b'{"uptime": 1}', b'{"uptime": "x"}'],
)
def test_what_is_no_status_is_said_so(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(NoStatus, match=r"status\.json"):
        read_status(path)


def test_a_status_of_another_version_is_said_so(path: Path) -> None:
    with closing(StatusFile(path)) as file:
        file.write(GOOD)
        whole = json.loads(path.read_bytes())
        for key in whole:
            path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
            with pytest.raises(NoStatus, match="another version"):
                read_status(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_sync": 4}, "2 of 6 entries are not as planned"),
        ({"fault": "no address"}, "the node is not ready: no address"),
        ({"faults": {"source": "line 3"}}, "the last good state is in use: line 3"),
        ({"faults": {"conflist": "foreign"}}, "no CNI configuration: foreign"),
        ({"faults": {"journal": "full"}}, "the journal is incomplete: full"),
        ({"refused": (Refused("a", "b", "c"),)}, "refused prefixes: 1"),
    ],
)
def test_each_trouble_has_its_words(change: dict[str, object], words: str) -> None:
    assert GOOD.troubles == ()
    assert replace(GOOD, **change).troubles == (words,)  # type: ignore[arg-type]


def test_trouble_that_is_over_is_none() -> None:
    assert replace(GOOD, last_error="was once", last_error_time=1.0).troubles == ()


def test_every_fault_is_a_trouble() -> None:
    assert len(replace(GOOD, fault="x", faults=dict.fromkeys(PARTS, "x")).troubles) == 1 + len(
        PARTS
    )
