"""check-config reports whether podwire could connect to etcd, without a connection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECK = """
import sys
{before}
from ctl.__main__ import main
sys.argv = ["podwirectl", "check-config", {path!r}]
sys.exit(main())
"""
SETTINGS = """
node: node-1
source:
  etcd:
    endpoints: [https://192.0.2.1:2379]
    clusterCIDRs: [10.244.0.0/16]
    {more}
"""


def check(folder: Path, before: str = "", more: str = "") -> subprocess.CompletedProcess[str]:
    """The output of `podwirectl check-config`."""
    path = folder / "podwired.yaml"
    path.write_text(SETTINGS.format(more=more))
    code = CHECK.format(before=before, path=str(path))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_configuration_that_is_right(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_library_that_is_missing_is_named_with_what_installs_it(tmp_path: Path) -> None:
    done = check(tmp_path, "sys.modules['httpx2'] = None")
    assert done.returncode == 1
    assert "needs the Python package httpx2: pip install 'podwire[etcd]'" in done.stderr


def test_files_that_are_missing_are_named(tmp_path: Path) -> None:
    done = check(tmp_path, more=f"caFile: {tmp_path}/none")
    assert done.returncode == 1
    assert f"source.etcd.caFile {tmp_path}/none could not be read" in done.stderr


def test_a_password_for_everybody_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hush")
    path.chmod(0o644)
    done = check(tmp_path, more=f"username: podwire\n    passwordFile: {path}")
    assert done.returncode == 1
    assert "has mode 0644: must be for root alone" in done.stderr
    assert "hush" not in done.stderr
