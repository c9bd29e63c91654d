"""Executables that are kept where runtimes look, and podwire's own conflists of before."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

from daemon.config.schema import ConflistSettings
from daemon.installer.manifest import aside, changing_manifest, load_manifest
from daemon.installer.programs import put_programs
from daemon.journal import MIN_BYTES, Journal
from daemon.log import Log
from daemon.routing.conflist import MARK
from daemon.routing.reporter import Reporter
from daemon.routing.takeover import AGAIN, Takeover
from tests.unit.daemon.clusters import settings


@dataclass
class Node:
    """Folders of a node that podwire is installed on."""

    folder: Path
    copy: bool
    now: float = 1000.0
    conflist: ConflistSettings = field(init=False)

    def __post_init__(self) -> None:
        self.source, self.bin = self.folder / "venv" / "podwire", self.folder / "bin"
        self.net = self.folder / "net.d"
        for path in (self.source.parent, self.net):
            path.mkdir()
        self.source.write_text("podwire")
        with changing_manifest(self.folder) as manifest:
            sources = [(name, self.source) for name in ("bridge", "podwire")]
            put_programs(manifest, self.bin, sources, copy=self.copy)
        self.reporter = Reporter(Journal(self.folder / "journal", MIN_BYTES), Log())
        self.restart("05-podwire.conflist", exclusive=True)

    def restart(self, name: str, *, exclusive: bool) -> None:
        path = self.net / name
        self.conflist = ConflistSettings(path=path, name="pods", exclusive=exclusive)
        path.write_text(json.dumps({"name": "pods", MARK: "x", "plugins": []}))
        found = settings().model_copy(update={"data_dir": self.folder, "conflist": self.conflist})
        self.takeover = Takeover(found, self.reporter, lambda: self.now)

    def check(self, later: float = 0.5) -> str:
        """One check; the fault."""
        self.now += later
        self.takeover.check_programs()
        return self.reporter.faults["programs"]

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in folder.iterdir())


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
    assert node.names(node.bin) == ["bridge", "podwire"]


def test_a_lock_that_is_held_delays_it_alone(node: Node) -> None:
    node.check()
    node.check()
    (node.bin / "podwire").unlink()
    with FileLock(node.folder / "install.json.lock"):
        assert "another process installs or removes podwire" in node.check()
    assert not node.check(AGAIN)
    assert node.names(node.bin) == ["bridge", "podwire"]


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


@pytest.mark.parametrize("exclusive", [True, False])
def test_the_conflist_of_another_path_is_removed(tmp_path: Path, exclusive: bool) -> None:
    node = Node(tmp_path, copy=False)
    foreign = node.net / "99-flannel.conflist"
    foreign.write_text("{}")
    other = node.net / "90-pods.conflist"
    other.write_text(json.dumps({"name": "another", MARK: "x", "plugins": []}))
    node.restart("20-podwire.conflist", exclusive=exclusive)
    node.takeover.check_conflists()
    names = [other, foreign]
    left = [aside(path).name if exclusive else path.name for path in names]
    assert node.names(node.net) == ["20-podwire.conflist", *left]
    assert not node.reporter.faults["takeover"]
    assert load_manifest(node.folder).conflists == (names if exclusive else [])
