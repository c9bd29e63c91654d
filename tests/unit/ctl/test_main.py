"""The command line of `podwirectl`: help, version, and what a command loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ctl.__main__ import main
from ctl.commands import COMMANDS
from tests import ROOT
from tests.unit.ctl.conftest import Run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Run, command: str) -> None:
    status, out, _err = run(command, "--help")
    assert status == 0
    assert out.startswith(f"usage: podwirectl {command}")
    assert "exit codes:" in out or "signals:" in out
    assert len(max(out.splitlines(), key=len)) <= 100


def test_the_first_help_names_every_command(run: Run) -> None:
    status, out, _err = run("--help")
    assert status == 0
    assert all(f"    {command}" in out for command in COMMANDS)
    assert run()[0] == run("frob")[0] == 2


def test_an_interrupt_ends_a_command_without_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctl.commands.history.run", interrupt)
    assert run("history") == (1, "", "podwirectl: interrupted\n")


LOADED = """
import sys
sys.argv = ["podwirectl", *sys.argv[1:]]
from ctl.__main__ import main
try:
    main()
finally:
    print("\\n".join(sys.modules), file=sys.stderr)
"""


def loaded(*words: object, env: Mapping[str, str] | None = None) -> set[str]:
    """Modules that a command loads in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *map(str, words)],
        cwd=ROOT, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return set(done.stderr.split())


def test_a_command_loads_what_it_needs(tmp_path: Path) -> None:
    journal, status = tmp_path / "journal.jsonl", tmp_path / "status.json"
    heavy = {
        "pydantic",
        "filelock",
        "pyroute2",
        "yaml",
        "asyncio",
        "subprocess",
        "daemon.cni_server.server",
        "ipam.cli",
        "ipam.store",
    }
    assert loaded("history", "--file", journal) & (heavy | {"daemon.status", "sqlite3"}) == set()
    assert loaded("status", "--file", status) & (heavy | {"daemon.journal"}) == set()
    assert loaded("--help") & (heavy | {"daemon.journal", "daemon.status", "sqlite3"}) == set()
    modules = loaded("check-config", tmp_path / "none.yaml")
    assert "yaml" in modules
    unused = {
        "pyroute2",
        "filelock",
        "asyncio",
        "daemon.cni_server.server",
        "daemon.journal",
        "ipam.cli",
        "ipam.store",
    }
    assert modules & unused == set()


def test_a_file_of_policies_that_cannot_be_read_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").mkdir()
    status, _out, err = run("policy", "lint", tmp_path / "p.yaml")
    why = "cannot be read: it is no regular file"
    assert (status, err) == (1, f"podwirectl: {tmp_path / 'p.yaml'} {why}\n")


def test_a_configuration_is_what_pydantic_is_loaded_for(config: Path) -> None:
    assert "pydantic" in loaded("check-config", config)


@pytest.mark.parametrize("word", ["--version", "-V"])
def test_the_version_is_the_plugins(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([word])
    assert ended.value.code in (0, None)
    plugin = subprocess.run(
        [sys.executable, "-m", "cni_plugin", "explain", "podwire", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert plugin.startswith("podwire ")
    assert capsys.readouterr().out == plugin.replace("podwire ", "podwirectl ", 1)


@pytest.mark.parametrize("closed", [">&-", ">/dev/full"])
@pytest.mark.parametrize("program", ["ctl", "cni_plugin"])
def test_an_answer_that_cannot_be_written_is_a_line_and_no_traceback(
    config: Path, program: str, closed: str
) -> None:
    words = {
        "ctl": f"-m ctl check-config {config}",
        "cni_plugin": "-m cni_plugin serve podwire /x",
    }
    command = f"exec {sys.executable} {words[program]} {closed}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env={**os.environ, "CNI_COMMAND": "VERSION"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
