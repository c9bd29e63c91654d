"""A node to call `handle` on.

All tests here run in a network namespace of their own: what a call changes when it should have
been refused is then not the machine's network.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cni_plugin import namespaces
from tests.unit.cni_plugin.calls import Node


@pytest.fixture(scope="module", autouse=True)
def _own_network() -> Iterator[None]:
    with namespaces.elsewhere():
        yield


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose store is not made yet."""
    with Node(tmp_path / "data") as made:
        yield made
