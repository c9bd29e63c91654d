"""A full disk and a read-only file system: real ones, mounted in a namespace of their own."""

from __future__ import annotations

from pathlib import Path

from tests.unit.ipam.processes import run_in_mount_namespace


def test_a_disk_that_fills_up_loses_nothing(data_dir: Path) -> None:
    error, *kept = run_in_mount_namespace("fill_disk", data_dir)
    assert error[:3] == ["error", "5", "True"]
    text = " ".join(error)
    assert f"no space left for {data_dir}/podwire.db" in text
    assert "free some space" in text
    for _, added, addresses, records in kept:
        assert int(added) > 10
        assert (int(addresses), int(records)) == (2 * int(added), int(added))
    assert len(kept) == 2


def test_a_full_disk_from_the_start(data_dir: Path) -> None:
    error, left, kept = run_in_mount_namespace("open_on_full_disk", data_dir)
    assert error[:3] == ["error", "5", "True"]
    assert "no space left" in " ".join(error)
    assert left == ["left", "ballast", "podwire.db.lock"]
    assert kept == ["kept", "1", "1", "1"]


def test_a_read_only_file_system(data_dir: Path) -> None:
    *errors, kept = run_in_mount_namespace("go_read_only", data_dir)
    assert [error[:3] for error in errors] == [["error", "5", "True"]] * 2
    for error in errors:
        assert str(data_dir) in " ".join(error)
        assert "Read-only file system" in " ".join(error)
    assert kept == ["kept", "2", "2", "2"]
