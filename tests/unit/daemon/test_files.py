"""What is said of a file that cannot be written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from daemon.files import explain


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


def test_a_folder_that_is_gone_has_no_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    text = explain("the file", tmp_path / "gone" / "x", PermissionError(errno.EACCES, "x"))
    assert text.endswith("Permission denied; see whether a security module forbids it")
