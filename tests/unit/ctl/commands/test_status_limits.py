"""`podwirectl status` where there is much to say, or nothing that may be read."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ctl.__main__ import main
from ctl.commands.status import NO_DAEMON
from daemon.status import NodeStatus, Refused, StatusFile

GOOD = NodeStatus("node-1", "vxlan", "static", peers=2, wanted=6, in_sync=6, mtu=1450)


def test_thousands_of_refusals_are_a_short_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, refused = tmp_path / "status.json", [Refused(f"n{i}", "P", "why") for i in range(3000)]
    with closing(StatusFile(path)) as file:
        file.write(replace(GOOD, refused=tuple(refused)))
        main(["status", "--file", str(path)])
        table = capsys.readouterr().out
        main(["status", "--file", str(path), "-o", "json"])
        listed = json.loads(capsys.readouterr().out)["refused"]
    assert len(table.splitlines()) < 40
    assert table.endswith("... and 2980 more: -o json has all of them\n")
    assert len(listed) == 3000


def test_an_error_that_is_over_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "status.json"
    with closing(StatusFile(path)) as file:
        for over, told in ((0.0, " ago)"), (1.0, ", over for ")):
            file.write(replace(GOOD, last_error="odd", last_error_time=1.0, last_error_over=over))
            main(["status", "--file", str(path)])
            [line] = [x for x in capsys.readouterr().out.splitlines() if "last error" in x]
            assert told in line
            assert ("over" in line) == bool(over)


def test_others_than_root_are_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "status.json"
    path.touch()
    path.chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        assert main(["status", "--file", str(path)]) == NO_DAEMON
    finally:
        os.seteuid(was)
    said = capsys.readouterr().err
    assert f"{path} cannot be read: Permission denied: are you root?" in said


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"3", b'{"name": "x"}', b"[" * 100_000, b"node: a\n"],
    ids=["empty", "binary", "list", "number", "another's", "deep", "yaml"],
)
def test_a_file_that_is_no_status_is_called_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert main(["status", "--file", str(path)]) == NO_DAEMON
    out, said = capsys.readouterr()
    assert f"podwirectl: {path} is no status of podwired" in said
    assert "--config" not in said
    assert (len(said.splitlines()), out) == (1, "")


def test_what_is_no_file_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for path, why in (
        (tmp_path, f"{tmp_path} is a directory, and so no status"),
        (tmp_path / "fifo", "fifo is no file, and so no status"),
        (tmp_path / "file" / "x", f"there is no {tmp_path}/file/x"),
    ):
        assert main(["status", "--file", str(path)]) == NO_DAEMON
        assert why in capsys.readouterr().err
