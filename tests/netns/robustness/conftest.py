"""Scenes: nodes with podwire on them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.robustness.calls import Zygote
from tests.netns.robustness.scene import Scene
from tests.pytest_netns import Node


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """The interpreter that calls are forked from."""
    with Zygote(tmp_path_factory.mktemp("zygote") / "socket") as running:
        yield running


@pytest.fixture
def scene(zygote: Zygote, node: Node, podwire_bin: Path) -> Scene:
    """A node with podwire on it."""
    return Scene(zygote, node, podwire_bin)
