"""Completion in a real bash, zsh and fish."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

from ctl.commands import COMMANDS
from tests.pytest_netns.tools import PROGRAMS
from tests.unit.ctl.conftest import Run

COMPLETE = """\
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_podwire_complete "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


ZSH = """\
compadd() { shift; print -l -- "$@"; }
_files() { print completion.zsh; }
compdef() { }
source "$1"; shift
words=("$@") CURRENT=$#
offered=("${(f)$(_podwire_complete)}")
print -l -- ${(M)offered:#${words[CURRENT]}*}
"""
"""zsh offers what begins as the word does; its own part needs a terminal, and is left out."""


@pytest.fixture(params=["bash", "zsh", "fish"])
def script(request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> Path:
    """The script of a shell, and a podwirectl that lists two pods."""
    status, out, _err = run("completion", request.param)
    assert status == 0
    path = tmp_path / f"completion.{request.param}"
    path.write_text(out)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "podwirectl"
    script = '#!/bin/sh\n[ "$3" = pods ] && echo shop/cart && echo shop/db || echo node-2\n'
    program.write_text(script)
    program.chmod(0o755)
    return path


def complete(script: Path, *words: str) -> set[str]:
    """What the shell offers for the last of the words."""
    env = {"PATH": f"{script.parent}/bin:/usr/bin:/bin", "HOME": str(script.parent)}
    asked = f'source {script}; complete -C "{" ".join(words)}"'
    argv: dict[str, list[str | Path]] = {
        ".bash": ["/bin/bash", "--norc", "-c", COMPLETE, "bash", script, *words],
        ".zsh": [PROGRAMS / "zsh", "-f", "-c", ZSH, "zsh", script, *words],
        ".fish": [PROGRAMS / "fish", "-c", asked],
    }
    done = subprocess.run(
        argv[script.suffix], env=env, cwd=script.parent, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {line.partition("\t")[0] for line in done.stdout.split("\n") if line}


def test_commands_and_their_options(script: Path) -> None:
    assert complete(script, "podwirectl", "") == set(COMMANDS)
    assert complete(script, "podwirectl", "sta") == {"status"}
    assert {"--version", "--help"} <= complete(script, "podwirectl", "-")
    assert complete(script, "podwirectl", "history", "--s") == {"--since"}
    assert complete(script, "podwirectl", "pods", "-o", "j") == {"json"}
    assert complete(script, "podwirectl", "diff", "--area", "rou") == {"routes"}
    assert complete(script, "podwired", "r") == {"run"}
    assert "--cni-bin" in complete(script, "podwired", "install", "--cni")
    assert complete(script, "/usr/bin/podwired", "run", "--log-level", "de") == {"debug"}
    assert "release" in complete(script, "podwire-ipam", "re")
    assert complete(script, "podwirectl", "nonsense", "") == set()


def test_names_and_files(script: Path) -> None:
    assert complete(script, "podwirectl", "dns", "shop/c") == {"shop/cart"}
    assert complete(script, "podwirectl", "pods", "") == {"shop/cart", "shop/db"}
    assert complete(script, "podwirectl", "peers", "n") == {"node-2"}
    assert complete(script, "podwirectl", "status", "--config", "comp") == {script.name}


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_the_key_completes(script: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        env = {"PATH": f"{script.parent}/bin:/usr/bin:/bin", "TERM": "dumb", "PS1": "> "}
        os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], env)
    try:
        os.write(terminal, f"source {script}\n echo podwirectl\npodwirectl hist\t".encode())
        until = time.monotonic() + 30
        seen = b""
        while b"podwirectl history" not in seen:
            assert time.monotonic() < until, seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)
