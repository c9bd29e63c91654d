"""The parts of the harness that need no namespaces: starting programs, filling stores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipam.host_local_files import read_directory
from ipam.store import open_store
from tests.bench import spawn
from tests.bench.filling import fill
from tests.bench.networks import BRIDGE_PLAIN, NAME
from tests.bench.results import PEER, PODWIRE
from tests.bench.rounds import in_turns

SHELL = Path("/bin/sh")


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "stderr", os.O_CREAT | os.O_RDWR)
    yield fd
    os.close(fd)


def test_a_program_gets_its_input_and_environment_alone(stderr: int) -> None:
    # A shell without arguments takes its commands from standard input.
    command = spawn.Command(SHELL, {"WORD": "wired"}, b"echo $WORD$HOME; echo no >&2; exit 7")
    ended = spawn.run(command, stderr)
    assert (ended.code, ended.stdout) == (7, b"wired\n")
    assert os.pread(stderr, 100, 0) == b"no\n"
    assert ended.wall > 0


def test_a_killed_program_has_its_signal_as_code(stderr: int) -> None:
    assert spawn.run(spawn.Command(SHELL, {}, b"kill -9 $$"), stderr).code == -9


@pytest.mark.parametrize("at_once", [1, 3, 50])
def test_many_programs_end_in_the_order_of_their_commands(stderr: int, at_once: int) -> None:
    commands = [spawn.Command(SHELL, {}, b"echo %d; exit %d" % (n, n)) for n in range(10)]
    wall, ends = spawn.run_many(commands, stderr, at_once)
    assert [(e.code, e.stdout) for e in ends] == [(n, b"%d\n" % n) for n in range(10)]
    assert wall >= max(e.wall for e in ends)


def test_a_program_that_is_missing_leaves_no_descriptor_open(stderr: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        spawn.run(spawn.Command(Path("/nonexistent"), {}), stderr)
    assert len(os.listdir("/proc/self/fd")) == before


def test_everybody_is_first_as_often_as_any_other() -> None:
    turns = [in_turns("abc", number) for number in range(6)]
    assert sorted(turn[0] for turn in turns) == ["a", "a", "b", "b", "c", "c"]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)


def test_both_stores_are_filled_alike(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    theirs.mkdir()
    fill(BRIDGE_PLAIN, 300, PODWIRE, ours)
    fill(BRIDGE_PLAIN, 300, PEER, theirs)
    with open_store(ours, create=False) as store, store.read() as tx:
        held = {a.address: a.owner for a in tx.allocations(NAME)}
    found, skipped = read_directory(theirs / NAME, NAME)
    assert not skipped
    assert held == {r.address: r.owner for r in found}
    assert len(held) == 300


def test_no_allocations_make_no_store(tmp_path: Path) -> None:
    fill(BRIDGE_PLAIN, 0, PODWIRE, tmp_path)
    fill(BRIDGE_PLAIN, 0, PEER, tmp_path)
    assert list(tmp_path.iterdir()) == []
