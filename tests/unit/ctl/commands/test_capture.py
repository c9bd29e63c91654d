"""The file of `podwirectl capture`: what packets carry is for root alone."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from tests.unit.ctl.conftest import Run


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has links to capture at, and nothing passes them."""
    monkeypatch.setattr("ctl.commands.capture._find_places", lambda *_: [])


def capture(run: Run, config: Path, file: Path) -> tuple[int, str]:
    status, _out, err = run("capture", "node", "-o", file, "--for", "1", "--config", config)
    return status, err


def test_a_new_file_is_readable_by_root_alone(run: Run, config: Path, tmp_path: Path) -> None:
    assert capture(run, config, tmp_path / "c.pcapng")[0] == 0
    assert (tmp_path / "c.pcapng").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_there_is_replaced_not_written_to(
    run: Run, config: Path, tmp_path: Path
) -> None:
    file = tmp_path / "c.pcapng"
    file.write_text("old")
    file.chmod(0o644)
    os.link(file, tmp_path / "other")
    with file.open() as reader:
        assert capture(run, config, file)[0] == 0
        assert reader.read() == "old"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert (tmp_path / "other").read_text() == "old"


def test_a_pipe_is_written_to(run: Run, config: Path, tmp_path: Path) -> None:
    pipe, found = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe, 0o600)
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert capture(run, config, pipe)[0] == 0
    reader.join(10)
    assert found[0][:4] == b"\x0a\x0d\x0d\x0a"


def test_no_other_file_is_touched(run: Run, config: Path, tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("link", "folder", "socket"):
            status, err = capture(run, config, tmp_path / name)
            assert status == 1
            assert f"{tmp_path / name} is neither a regular file nor a pipe" in err
    assert (tmp_path / "target").read_text() == "old"
    assert (tmp_path / "link").is_symlink()
