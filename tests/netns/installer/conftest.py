"""Fixtures of the tests of the installer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.installer.place import CLUSTER, ROOT, Place, Used
from tests.pytest_netns import Node


@pytest.fixture
def place(tmp_path: Path) -> Place:
    ignored = shutil.ignore_patterns("build", ".*", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    return Place(
        source,
        tmp_path / "opt" / "podwire",
        tmp_path / "cni" / "bin",
        tmp_path / "bin",
        tmp_path / "data",
    )


@pytest.fixture
def used(place: Place, node: Node, podwire_bin: Path, tmp_path: Path) -> Iterator[Used]:
    """Installed by hand, for an environment of its own takes long: it is another test's."""
    (place.prefix / "venv" / "bin").mkdir(parents=True)
    for folder in (place.cni_bin, place.bin):
        folder.mkdir(parents=True)
    for name in ("podwired", "podwirectl"):
        program = (podwire_bin / "podwire").resolve().with_name(name)
        (place.prefix / "venv" / "bin" / name).symlink_to(program)
    (place.prefix / "cni-bin").write_text(f"{place.cni_bin}\n")
    (place.prefix / "commands-bin").write_text(f"{place.bin}\n")
    (place.bin / "podwired").symlink_to(place.prefix / "venv" / "bin" / "podwired")
    config, nodes = tmp_path / "podwired.yaml", tmp_path / "nodes.yaml"
    nodes.write_text(json.dumps(CLUSTER).replace("{}", node.address(4)))
    conflist = tmp_path / "05-podwire.conflist"
    settings = {
        "node": "node-1",
        "source": {"static": str(nodes)},
        "conflist": {"path": str(conflist)},
    }
    config.write_text(json.dumps(settings))
    found = Used(node, place, config, conflist)
    yield found
    if found.daemon is not None:
        found.kill()
