"""The programs of a cluster: Kubernetes' are the user's, containerd and runc are Debian's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests import ROOT

FOLDER = ROOT / "build/programs"
RUNTIME = ("containerd", "containerd-shim-runc-v2", "ctr", "runc")


def kube(name: str) -> Path:
    """A program of Kubernetes."""
    return Path(os.environ["KUBE_BIN"], name)


def fetch() -> None:
    """Fetch what Debian has."""
    tool = ROOT / "tests/tools/debian-programs"
    subprocess.run([tool, "install", "etcd", *RUNTIME], check=True)
