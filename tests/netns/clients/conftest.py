"""What the clients share: a place for network lists, and podwire's own view of what is held."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pytest_netns import Node

WriteNetwork = Callable[..., Path]
Held = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def write_network(tmp_path: Path) -> WriteNetwork:
    """Writes a network configuration list; the directory that it is in."""

    def write(name: str, *plugins: dict[str, Any], version: str = "1.1.0") -> Path:
        directory = tmp_path / "net.d"
        directory.mkdir(exist_ok=True)
        conf = {"cniVersion": version, "name": name, "plugins": plugins}
        (directory / f"10-{name}.conflist").write_text(json.dumps(conf))
        return directory

    return write


@pytest.fixture
def held(node: Node, podwire_bin: Path) -> Held:
    """Reads the addresses that podwire holds on the node."""

    def read() -> list[dict[str, Any]]:
        listing = node.run([podwire_bin / "podwire-ipam", "-o", "json", "list"]).stdout
        return list(json.loads(listing))

    return read
