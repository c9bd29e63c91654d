"""Work on CNI directories that is killed at any line is finished, or undone, by the next run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import ROOT


@pytest.mark.parametrize("work", ["install", "upgrade", "uninstall"])
def test_killed_at_any_line(work: str) -> None:
    argv = [sys.executable, "-m", "tests.unit.daemon.installer.interrupted", work]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20
