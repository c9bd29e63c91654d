"""A node to call `handle` on.

All tests here run in a network namespace of their own: what a call changes when it should have
been refused is then not the machine's network.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.attach import delete_links
from kernel.netlink.socket import open_netlink
from kernel.read import read_links
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


@pytest.fixture
def no_links() -> None:
    """A store that is made is filled from the links of pods: those of earlier tests are gone."""
    with open_netlink() as nl:
        for link in read_links(nl):
            if link.kind == "veth":
                delete_links(nl, [link.name])
