"""Levels of tables and disks, as a real kernel has them."""

from __future__ import annotations

import os
from pathlib import Path

from kernel.limits import Disk, read_descriptors, read_disk, read_levels


def test_levels_are_below_their_bounds() -> None:
    found = list(read_levels(permanent=1 << 30))
    assert all(0 <= level.used <= level.size for level in found)
    assert all(level.used == 0 for level in found if "neighbours" in level.name)


def test_a_disk_with_room_lacks_nothing(tmp_path: Path) -> None:
    level = read_disk(tmp_path)
    assert level == Disk(tmp_path)
    assert level is not None
    assert level.fault == ""
    assert read_disk(tmp_path / "missing") is None


def test_open_files_of_a_process() -> None:
    level = read_descriptors(os.getpid())
    assert level is not None
    assert 0 < level.used < level.size
    assert read_descriptors(1 << 30) is None
