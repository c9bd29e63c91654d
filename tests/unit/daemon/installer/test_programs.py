"""Executables in a folder of CNI plugins: put there, kept there, taken off."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.installer.manifest import Manifest, ManifestFault, load_manifest
from daemon.installer.programs import put_programs, remove_files, restore_programs


@dataclass
class Place:
    """A folder of CNI plugins, and podwire's executable."""

    folder: Path
    source: Path
    manifest: Manifest
    copy: bool = False

    def put(self, *names: str) -> list[str]:
        sources = [(name, self.source) for name in names or ("podwire",)]
        return put_programs(self.manifest, self.folder, sources, copy=self.copy)

    def restore(self) -> list[str]:
        return restore_programs(self.manifest)[0]

    def remove(self) -> list[str]:
        return remove_files(self.manifest)

    def read(self) -> dict[str, str]:
        found = sorted(self.folder.iterdir())
        return {p.name: os.readlink(p) if p.is_symlink() else p.read_text() for p in found}


@pytest.fixture(params=[False, True], ids=["linked", "copied"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    source = tmp_path / "venv" / "podwire"
    source.parent.mkdir()
    source.write_text("podwire")
    return Place(tmp_path / "bin", source, Manifest(tmp_path), request.param)


def test_put_again_changes_nothing(place: Place) -> None:
    assert place.put("podwire", "bridge") == [str(place.folder / n) for n in ("podwire", "bridge")]
    before = place.read()
    assert place.put("podwire", "bridge") == []
    assert place.read() == before


def test_what_is_missing_comes_back(place: Place) -> None:
    place.put("podwire", "bridge")
    before = place.read()
    (place.folder / "bridge").unlink()
    assert place.restore() == [str(place.folder / "bridge")]
    assert place.read() == before
    assert place.restore() == []


def test_what_a_package_puts_in_its_place_is_set_aside_and_put_back(place: Place) -> None:
    place.folder.mkdir()
    (place.folder / "bridge").write_text("of version 1")
    place.put("bridge")
    (place.folder / "bridge").unlink()
    (place.folder / "bridge").write_text("of version 2")
    assert any("set aside" in line for line in place.restore())
    assert "of version 2" not in place.read()["bridge"]
    place.remove()
    assert place.read() == {"bridge": "of version 2"}


def test_what_came_after_the_last_look_stays(place: Place) -> None:
    place.folder.mkdir()
    (place.folder / "bridge").write_text("of version 1")
    place.put("bridge")
    (place.folder / "bridge").unlink()
    (place.folder / "bridge").write_text("of version 2")
    lines = place.remove()
    assert any("is not podwire's any more" in line for line in lines)
    assert place.read() == {
        "bridge": "of version 2", "bridge.set-aside-by-podwire": "of version 1"
    }  # fmt: skip


def test_an_installation_that_is_gone_puts_nothing_back(place: Place) -> None:
    place.put("podwire")
    (place.folder / "podwire").unlink()
    place.source.unlink()
    assert place.restore() == []
    assert place.read() == {}


def test_a_copy_of_another_version_is_not_put_back(place: Place) -> None:
    """As the daemon of before, while a newer installation's is about to start."""
    place.copy = True
    place.put("podwire")
    (place.folder / "podwire").unlink()
    place.source.write_text("another version")
    assert place.restore() == []
    assert place.read() == {}


@pytest.mark.parametrize("kind", ["a file", "a dangling link"])
def test_a_folder_that_is_none_is_refused(place: Place, kind: str) -> None:
    if kind == "a file":
        place.folder.write_text("")
    else:
        place.folder.symlink_to("nowhere")
    with pytest.raises(NotADirectoryError) as caught:
        place.put()
    assert caught.value.filename == str(place.folder)
    assert place.manifest.is_empty


def test_a_linked_folder_is_used_as_it_stands(place: Place) -> None:
    """As k3s has it: a link that leads to another folder after an upgrade."""
    first, second = (place.folder.with_name(name) for name in ("v1", "v2"))
    for folder in (first, second):
        folder.mkdir()
    place.folder.symlink_to(first)
    place.put("bridge")
    place.folder.unlink()
    place.folder.symlink_to(second)
    assert place.restore() == [str(place.folder / "bridge")]
    assert (second / "bridge").exists()


def test_a_directory_in_the_place_of_a_program_is_left(place: Place) -> None:
    (place.folder / "podwire").mkdir(parents=True)
    with pytest.raises(OSError, match="neither a file nor a link"):
        place.put()
    assert place.manifest.is_empty


def test_the_manifest_is_read_as_it_was_written(place: Place, tmp_path: Path) -> None:
    place.put("podwire", "bridge")
    place.manifest.conflists.append(Path("/etc/cni/net.d/10-flannel.conflist"))
    place.manifest.save()
    assert load_manifest(tmp_path) == place.manifest


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version":1}', '{"version":1,"files":{"/a":{}},"conflists":[]}']
)
def test_a_damaged_manifest_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "install.json").write_text(text)
    with pytest.raises(ManifestFault, match="damaged"):
        load_manifest(tmp_path)


def test_a_manifest_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "install.json").write_text('{"version": 2}')
    with pytest.raises(ManifestFault, match="use the podwire that wrote it"):
        load_manifest(tmp_path)
