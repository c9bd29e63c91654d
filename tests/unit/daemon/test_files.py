"""The daemon's files: what folders may be read by, and what is said of what cannot be written."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.files import explain, make_folder


@pytest.mark.parametrize(
    ("user", "owner", "code", "hint"),
    [
        (0, 1001, errno.EACCES, "{} belongs to user 1001: podwired needs CAP_DAC_OVERRIDE; see"),
        (0, 0, errno.EACCES, "see whether a security module forbids it"),
        (0, 1001, errno.EPERM, "see whether something is immutable there (lsattr)"),
        (1000, 0, errno.EACCES, "podwired must run as root; see whether a security module"),
        (1000, 0, errno.EPERM, "podwired must run as root; see whether something is immutable"),
        (0, 1001, errno.ENOSPC, "free some space there"),
    ],
)
def test_what_is_forbidden_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, owner: int, code: int, hint: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    real = tmp_path.stat()
    owned = os.stat_result((*real[:4], owner, *real[5:]))
    monkeypatch.setattr(Path, "stat", lambda _path: owned)
    text = explain("the file", tmp_path / "x", OSError(code, "x"))
    reason = os.strerror(code)
    start = f"the file {tmp_path}/x cannot be written: {reason}; {hint.format(tmp_path)}"
    assert text.startswith(start)


@pytest.mark.parametrize(
    ("folder", "unit", "named"),
    [("/usr/lib/cni", True, True), ("/usr/lib/cni", False, False), ("/opt/cni/bin", True, False)],
)
def test_what_the_unit_protects_needs_a_line_in_it(
    monkeypatch: pytest.MonkeyPatch, folder: str, unit: bool, named: bool
) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    if unit:
        monkeypatch.setenv("INVOCATION_ID", "0")
    text = explain("the file", Path(folder) / "bridge", OSError(errno.EROFS, "x"))
    assert (f"ReadWritePaths={folder}" in text) == named
    assert "remount it writable" in text


def test_a_folder_that_is_gone_has_no_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    text = explain("the file", tmp_path / "gone" / "x", PermissionError(errno.EACCES, "x"))
    assert text.endswith("Permission denied; see whether a security module forbids it")


@pytest.fixture(params=[0o077, 0o027, 0])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o700, 0o755])
@pytest.mark.usefixtures("umask")
def test_a_folder_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    """Those that contain it can be read by all: podwire's may be one of several there."""
    make_folder(tmp_path / "a" / "b" / "c", mode)
    assert mode_of(tmp_path / "a" / "b" / "c") == mode
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a" / "b") == 0o755


def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    make_folder(tmp_path, 0o755)
    (tmp_path / "link").symlink_to(tmp_path)
    make_folder(tmp_path / "link", 0o755)
    assert mode_of(tmp_path) == 0o711


def test_a_folder_that_cannot_be_made_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):  # what procfs says of every new name
        make_folder(Path("/proc/a/b"))


@pytest.mark.parametrize("below", ["", "x", "x/y"])
@pytest.mark.parametrize("what", ["file", "link"])
def test_what_is_no_folder_is_refused(tmp_path: Path, what: str, below: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError) as caught:
        make_folder(tmp_path / what / below)
    assert caught.value.errno == errno.ENOTDIR
