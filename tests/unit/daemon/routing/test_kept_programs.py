"""Executables that are kept where runtimes look."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from daemon.installer.manifest import changing_manifest
from daemon.installer.programs import put_programs
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing.kept_programs import AGAIN, KeptPrograms
from daemon.routing.reporter import Reporter


@dataclass
class Node:
    """Folders of a node that podwire is installed on."""

    folder: Path
    copy: bool
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.source, self.bin = self.folder / "venv" / "podwire", self.folder / "bin"
        self.source.parent.mkdir()
        self.source.write_text("podwire")
        with changing_manifest(self.folder) as manifest:
            sources = [(name, self.source) for name in ("bridge", "podwire")]
            put_programs(manifest, self.bin, sources, copy=self.copy)
        self.reporter = Reporter(Journal(self.folder / "journal", MIN_BYTES), Log())
        self.programs = KeptPrograms(self.folder, self.reporter, lambda: self.now)

    def check(self, later: float = 0.5) -> str:
        """One check; the fault."""
        self.now += later
        self.programs.check()
        return self.reporter.faults["programs"]

    def names(self) -> list[str]:
        return sorted(path.name for path in self.bin.iterdir())


@pytest.fixture(params=[False, True], ids=["linked", "copied"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    return Node(tmp_path, request.param)


def test_executables_come_back_once_their_folder_does(node: Node) -> None:
    assert not node.check()
    shutil.rmtree(node.bin)
    assert f"{node.bin / 'bridge'} (and 1 more) is not in place" in node.check()
    assert f"the folder {node.bin} was removed: make it again" in node.check()
    assert not node.bin.exists()
    node.bin.mkdir()
    assert not node.check(AGAIN)
    assert node.names() == ["bridge", "podwire"]


def test_a_lock_that_is_held_delays_it_alone(node: Node) -> None:
    node.check()
    node.check()
    (node.bin / "podwire").unlink()
    with FileLock(node.folder / "install.json.lock"):
        assert "another process installs or removes podwire" in node.check()
    assert not node.check(AGAIN)
    assert node.names() == ["bridge", "podwire"]


def test_one_that_cannot_be_put_back_keeps_no_other_from_it(node: Node) -> None:
    node.check()
    for name in ("bridge", "podwire"):
        (node.bin / name).unlink()
    (node.bin / "bridge").mkdir()
    assert f"the file {node.bin / 'bridge'} cannot be written: Is a directory" in node.check()
    assert (node.bin / "podwire").read_text() == "podwire"


def test_an_installation_that_is_gone_is_reported(node: Node) -> None:
    node.check()
    node.source.unlink()
    (node.bin / "podwire").unlink()
    assert f"{node.source} is missing, or of another version: install podwire" in node.check()
