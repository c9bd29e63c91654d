"""The watched file: half-written, broken, gone, replaced; the last good state stays in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daemon.files import SETTLE_SECONDS
from daemon.model import Snapshot, Source
from daemon.sources.static import StaticSource

ONE = "nodes:\n- {name: a, addresses: [192.0.2.1], podCIDRs: []}\n"
TWO = ONE + "- {name: b, addresses: [192.0.2.2], podCIDRs: []}\n"


class Watched:
    """A file and its source, with clocks that only the test moves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = 1000.0
        self.wall_offset = 0.0
        self.source = StaticSource(path, now=lambda: self.seconds, today=self.today)

    def today(self) -> float:
        """As the file system sees it: at least the newest change's time."""
        try:
            return os.stat(self.path).st_ctime + self.wall_offset
        except FileNotFoundError:
            return 0.0

    def write(self, text: str) -> None:
        """In place, as an editor without care does it."""
        self.path.write_text(text)

    def poll(self, seconds: float = SETTLE_SECONDS) -> Snapshot | None:
        """A poll after that time."""
        self.seconds += seconds
        return self.source.poll()

    def settle(self) -> Snapshot | None:
        """Poll as long as a change needs to be taken."""
        return self.poll(0) or self.poll()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A source of one node, read."""
    watched = Watched(tmp_path / "nodes.yaml")
    watched.write(ONE)
    assert watched.settle() is not None
    return watched


def names(snapshot: Snapshot | None) -> list[str]:
    return [node.name for node in snapshot.nodes] if snapshot else []


def test_it_is_a_source(tmp_path: Path) -> None:
    source: Source = StaticSource(tmp_path / "none")
    assert source.fileno() is None
    source.close()


def test_a_file_that_was_not_written_recently_is_read_at_once(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "nodes.yaml")
    watched.write(ONE)
    watched.wall_offset = SETTLE_SECONDS + 0.1
    assert names(watched.poll(0)) == ["a"]
    assert watched.poll() is None


@pytest.mark.parametrize("offset", [0.0, -3600.0])
def test_a_file_just_written_is_looked_at_twice(tmp_path: Path, offset: float) -> None:
    """Also where the wall clock went back since."""
    watched = Watched(tmp_path / "nodes.yaml")
    watched.write(ONE)
    watched.wall_offset = offset
    assert watched.poll(0) is None
    assert watched.poll(SETTLE_SECONDS / 2) is None
    assert names(watched.poll(SETTLE_SECONDS / 2)) == ["a"]


def test_a_file_that_is_still_written_is_left_alone(watched: Watched) -> None:
    for end in range(len(ONE), len(TWO) + 1):
        watched.write(TWO[:end])
        assert watched.poll(SETTLE_SECONDS * 0.9) is None
        assert watched.source.fault == ""
    assert names(watched.poll()) == ["a", "b"]


def test_many_polls_at_once_do_not_count_as_time(watched: Watched) -> None:
    watched.write(TWO)
    assert [watched.poll(0) for _ in range(50)] == [None] * 50
    assert names(watched.poll()) == ["a", "b"]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("", "is empty"),
        ("nodes: [", "is not YAML"),
        ("nodes: []", "must list a node at least"),
        (TWO + "- {name: c}\n", ":4: nodes[2]: needs the key addresses"),
        (TWO.replace("192.0.2.2", "192.0.2"), ":3: nodes[1].addresses[0] is '192.0.2'"),
    ],
)
def test_a_broken_edit_keeps_the_last_good_state_and_says_so(
    watched: Watched, broken: str, why: str
) -> None:
    watched.write(broken)
    assert watched.settle() is None
    assert why in watched.source.fault
    assert str(watched.path) in watched.source.fault
    assert watched.settle() is None
    assert why in watched.source.fault  # still: the file is as broken as it was
    watched.write(TWO)
    assert names(watched.settle()) == ["a", "b"]
    assert watched.source.fault == ""


@pytest.mark.parametrize("end", ["...", "...\n", "...\n\n"])
def test_a_file_that_ended_with_the_mark_is_cut_off_without(watched: Watched, end: str) -> None:
    watched.write(TWO + end)
    assert names(watched.settle()) == ["a", "b"]
    for cut in (ONE, TWO, TWO.replace("[192.0.2.2]", "[192.0.2.3]")):
        watched.write(cut)
        assert watched.settle() is None
        assert "its last line was `...` before" in watched.source.fault
    watched.write(ONE + end)
    assert names(watched.settle()) == ["a"]
    assert watched.source.fault == ""


def test_an_edit_undone_is_no_news_but_ends_the_fault(watched: Watched) -> None:
    watched.write("x")
    watched.settle()
    assert watched.source.fault
    watched.write(ONE)
    assert watched.settle() is None
    assert watched.source.fault == ""


def test_a_comment_is_no_news(watched: Watched) -> None:
    watched.write(f"# hello\n{ONE}")
    assert watched.settle() is None
    assert watched.source.fault == ""


def test_a_file_that_goes_and_comes_back(watched: Watched) -> None:
    aside = watched.path.with_name("aside")
    watched.path.rename(aside)
    assert watched.settle() is None
    assert "could not be read: No such file" in watched.source.fault
    aside.rename(watched.path)
    assert watched.settle() is None
    assert watched.source.fault == ""


def test_a_file_renamed_into_place_is_taken_though_it_is_older(watched: Watched) -> None:
    fresh = watched.path.with_name("fresh")
    fresh.write_text(TWO)
    os.utime(fresh, (0, 0))
    fresh.rename(watched.path)
    assert names(watched.settle()) == ["a", "b"]


def test_an_edit_that_keeps_size_and_date_is_seen(watched: Watched) -> None:
    before = watched.path.stat()
    watched.write(ONE.replace("name: a", "name: z"))
    os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert watched.path.stat().st_size == before.st_size
    assert names(watched.settle()) == ["z"]


def test_a_link_turned_to_another_file_is_seen(tmp_path: Path) -> None:
    """As the kubelet swaps the contents of a mounted ConfigMap."""
    for name, text in (("one", ONE), ("two", TWO)):
        (tmp_path / name).write_text(text)
    watched = Watched(tmp_path / "nodes.yaml")
    watched.path.symlink_to("one")
    assert names(watched.settle()) == ["a"]
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(watched.path)
    assert names(watched.settle()) == ["a", "b"]


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_refused_without_waiting_for_it(watched: Watched, kind: str) -> None:
    watched.path.unlink()
    watched.path.mkdir() if kind == "folder" else os.mkfifo(watched.path)
    assert watched.settle() is None
    assert "is no regular file" in watched.source.fault or "directory" in watched.source.fault


def test_nodes_that_did_not_change_are_the_same_objects(watched: Watched) -> None:
    watched.write(TWO)
    first = watched.settle()
    watched.write(TWO.replace("192.0.2.2", "192.0.2.3"))
    second = watched.settle()
    assert first is not None
    assert second is not None
    assert second.nodes[0] is first.nodes[0]
    assert second.nodes[1] != first.nodes[1]
