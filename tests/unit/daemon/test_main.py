"""The command line of `podwired`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from daemon.__main__ import COMMANDS, MOVED, main
from tests import ROOT


def podwired(*words: object) -> subprocess.CompletedProcess[str]:
    """What `podwired` answers, started in an interpreter of its own."""
    argv = [sys.executable, "-m", "daemon", *map(str, words)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    done = podwired(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: podwired {command}")
    assert ("signals:" in done.stdout) == (command in ("run", "serve"))
    assert ("examples:" in done.stdout) == (command in ("install", "uninstall"))
    assert len(max(done.stdout.splitlines(), key=len)) <= 100


def test_help_names_every_command() -> None:
    done = podwired("--help")
    assert done.returncode == 0
    assert all(f"    {command}" in done.stdout for command in COMMANDS)
    assert podwired().returncode == podwired("frob").returncode == 2


def test_help_loads_no_library_of_the_daemon() -> None:
    code = "import sys, daemon.__main__ as m; sys.argv = ['podwired', '--help']\ntry: m.main()\n"
    code += "finally: print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    loaded = set(done.stderr.split())
    assert "daemon.options" in loaded
    assert not loaded & {
        "pydantic",
        "yaml",
        "pyroute2",
        "daemon.cni_server.server",
        "daemon.status",
    }


@pytest.mark.parametrize("command", sorted(MOVED))
def test_moved_commands_are_passed_on_with_a_hint(command: str) -> None:
    done = podwired(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: podwirectl {command}")
    assert f"`podwired {command}` is now `podwirectl {command}`" in done.stderr


def test_a_moved_command_keeps_its_arguments_and_exit_status(tmp_path: Path) -> None:
    done = podwired("status", "--file", tmp_path / "none")
    assert done.returncode == 2
    assert str(tmp_path / "none") in done.stderr


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_a_data_directory_that_cannot_be_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], below: str
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / below
    socket = tmp_path / "s"
    assert main(["serve", "--socket", str(socket), "--data-dir", str(path)]) == 1
    said = capfd.readouterr().err
    assert f"the data directory {path} cannot be: {tmp_path}/file is no directory" in said
    assert not socket.exists()
