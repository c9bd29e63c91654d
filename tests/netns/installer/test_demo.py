"""The demo, the first command of README.md: it ends well, and leaves nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[3] / "packaging" / "demo"


@pytest.mark.parametrize("source", ["static", "etcd"])
def test_it_shows_everything_and_leaves_nothing(source: str) -> None:
    argv = [sys.executable, str(DEMO), *(["--source", source] if source != "static" else [])]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    steps = [line for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert [line.partition(".")[0] for line in steps] == list("123456789")
    assert steps[-1].endswith(": nothing")
    entries = Path("/run/podwire/stores").glob("*")
    assert [link for link in entries if "podwire-demo-" in os.readlink(link)] == []
