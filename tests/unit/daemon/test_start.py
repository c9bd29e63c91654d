"""The first moments of the daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cni_plugin.errors import CniError
from daemon.cni_server.listener import listen
from tests import ROOT

SIGNALLED = """
import os, signal, sys
import daemon.__main__ as program
real = program._parser
def parser():
    assert "daemon.run" not in sys.modules
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGTERM)
    return real()
program._parser = parser
sys.exit(program.main())
"""


def start(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The daemon's program, which is told to switch its log and to end before it is loaded."""
    return subprocess.run(
        [sys.executable, "-c", SIGNALLED, *words],
        env={"PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_signals_before_anything_is_loaded(tmp_path: Path) -> None:
    done = start("serve", "--socket", f"{tmp_path}/s", "--data-dir", f"{tmp_path}/d")
    assert done.returncode == 0, done.stderr
    assert "log level is debug" in done.stderr
    assert done.stderr.endswith("stopped\n")


def test_signals_kill_neither_of_the_daemons() -> None:
    for verb in ("serve", "run"):
        done = start(verb, "--no-such-option")
        assert done.returncode == 2, "it has come to its complaint"


def test_a_socket_whose_path_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100)
    with pytest.raises(CniError, match=f"socket {path} .* has {len(str(path))} bytes.* 107 at"):
        listen(path)
    fits = tmp_path / ("y" * (107 - len(f"{tmp_path}/")))
    with listen(fits):
        assert fits.is_socket()
