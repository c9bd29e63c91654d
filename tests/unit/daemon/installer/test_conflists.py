"""Other plugins' CNI configurations: which count, set aside and put back."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.installer.conflists import (
    other_conflists,
    put_back_conflists,
    set_aside_conflists,
)
from daemon.installer.manifest import Manifest

OWN = "05-podwire.conflist"


@pytest.fixture
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Manifest(tmp_path_factory.mktemp("data"))


def test_what_runtimes_read_counts() -> None:
    names = [OWN, "87-podman-bridge.conflist", "10-a.conf", "b.json", "README", "c.conflist.bak"]
    assert other_conflists(names, OWN, ()) == ["10-a.conf", "87-podman-bridge.conflist", "b.json"]


def test_patterns_leave_some_alone() -> None:
    names = [OWN, "00-multus.conf", "10-flannel.conflist", "ZZZ-istio-cni.conf"]
    assert other_conflists(names, OWN, ("*multus*", "*istio*")) == ["10-flannel.conflist"]


def test_aside_and_back(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "10-flannel.conflist"
    path.write_text("one")
    set_aside_conflists(manifest, [path])
    assert [p.name for p in tmp_path.iterdir()] == ["10-flannel.conflist.set-aside-by-podwire"]
    path.write_text("two")  # its daemon runs yet
    set_aside_conflists(manifest, [path])
    assert put_back_conflists(manifest) == [f"put back {path}"]
    assert path.read_text() == "two"
    assert manifest.is_empty
    assert put_back_conflists(manifest) == []


def test_one_that_is_there_again_is_not_overwritten(manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "10-flannel.conflist"
    path.write_text("one")
    set_aside_conflists(manifest, [path])
    path.write_text("two")
    (line,) = put_back_conflists(manifest)
    assert line.startswith("left ")
    assert path.read_text() == "two"
    assert (tmp_path / "10-flannel.conflist.set-aside-by-podwire").read_text() == "one"
