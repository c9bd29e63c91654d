"""The configuration that the commands read, and how a test runs one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctl.__main__ import main

NODES = """\
clusterCIDRs: [10.244.0.0/16]
nodes:
- name: node-1
  addresses: [192.0.2.1, "2001:db8::1"]
  podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]
- name: node-2
  addresses: [192.0.2.2]
  podCIDRs: [10.244.2.0/24]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A right configuration whose files are all in a folder of its own."""
    (tmp_path / "nodes.yaml").write_text(NODES)
    path = tmp_path / "podwired.yaml"
    path.write_text(
        f"node: node-1\nsource: {{static: {tmp_path}/nodes.yaml}}\n"
        f"dataDir: {tmp_path}/data\nsocket: {tmp_path}/run/podwire.sock\n"
    )
    return path


Run = Callable[..., tuple[int, str, str]]
"""A command and its options to exit status, stdout, stderr."""


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command: exit status, output, what it says beside it."""

    def call(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = int(str(end.code))
        out, err = capsys.readouterr()
        return status, out, err

    return call
