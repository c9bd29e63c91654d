"""Files that are written some time after a change."""

from __future__ import annotations

import os
import stat
import time
from functools import partial
from pathlib import Path

import pytest

from daemon import delayed_file
from daemon.delayed_file import DelayedFile
from daemon.log import Log
from tests.unit.daemon.waiting import wait_until


def made(path: Path, soon: float = 3600.0, log: Log | None = None) -> DelayedFile[bytes]:
    return DelayedFile(path, "the state", lambda value: value, soon=soon, log=log)


def test_the_end_writes_what_is_due(tmp_path: Path) -> None:
    path = tmp_path / "data" / "f"
    file = made(path)
    file.update(b"1")
    file.update(b"2")
    assert not path.exists()
    file.close()
    assert path.read_bytes() == b"2"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    path.unlink()
    file.close()
    assert not path.exists()


def test_the_newest_value_is_written_when_the_first_is_due(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = made(path, soon=0.05)
    file.update(b"1", 3600)
    file.update(b"2")
    file.update(b"3", 3600)
    wait_until(path.exists)
    assert path.read_bytes() == b"3"
    file.close()


def test_a_change_is_written_soon_after_an_earlier_write(tmp_path: Path) -> None:
    path = tmp_path / "f"
    file = made(path, soon=0.05)
    for value in (b"1", b"2"):
        file.update(value)
        wait_until(lambda: path.exists() and path.read_bytes() == value)  # noqa: B023
    file.update(b"3", 3600)
    file.update(b"4")
    wait_until(lambda: path.read_bytes() == b"4")
    file.close()


def test_a_disk_that_cannot_be_written_is_logged_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_text("a file in its place")
    file = made(tmp_path / "data" / "f", log=Log())
    for _ in range(3):
        file.update(b"1")
        file.close()
    [line] = capfd.readouterr().err.splitlines()
    assert "the state" in line
    assert "`dataDir`" in line


def test_what_could_not_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delayed_file, "RETRY", 0.05)
    folder = tmp_path / "data"
    folder.write_text("a file in its place")
    file = made(folder / "f", soon=0.05)
    file.update(b"1")
    wait_until(lambda: file.fault)
    folder.unlink()
    wait_until(lambda: not file.fault)
    file.close()
    assert (folder / "f").read_bytes() == b"1"


def test_a_disk_that_is_slow_once_does_not_put_off_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    monkeypatch.setattr(delayed_file, "REST", 1e3)

    def render(value: bytes) -> bytes:
        time.sleep(0.3)  # stands for the wait for a disk
        return value

    file = DelayedFile(path, "the state", render, soon=0.01)

    def has(value: bytes) -> bool:
        return path.exists() and path.read_bytes() == value

    for value in (b"1", b"2"):
        file.update(value)
        wait_until(partial(has, value))
    file.close()
