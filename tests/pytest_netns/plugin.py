"""The fixtures and hooks of the plugin; see the package's docstring."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from cni_plugin.chained import STAND_INS
from tests.pytest_netns import reaper, tools
from tests.pytest_netns.namespace import Namespace
from tests.pytest_netns.node import Node
from tests.pytest_netns.underlay import Underlay

MakeNamespace = Callable[[str], Namespace]

NAMES = tuple(sorted(STAND_INS))
"""Reference plugins under whose names podwire can be started."""


class MakeNode(Protocol):
    def __call__(self, *, mtu: int = 1500) -> Node: ...


class Registry:
    """Namespaces of this session: all names share a prefix that no other session has."""

    def __init__(self) -> None:
        self.prefix = f"pwt-{os.getpid()}-"
        self._numbers = itertools.count(1)
        self._reaper = reaper.start_reaper(self.prefix)

    def make(self, label: str) -> Namespace:
        return Namespace(f"{self.prefix}{next(self._numbers)}-{label}")

    def close(self) -> list[str]:
        """Remove what is left; its names."""
        left = reaper.named(self.prefix)
        self._reaper.communicate()
        return left


@pytest.fixture(scope="session")
def netns_registry() -> Iterator[Registry]:
    """The session's namespaces; fails the run if one is left at its end."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root", pytrace=False)
    registry = Registry()
    yield registry
    left = registry.close()
    if left:
        pytest.fail(f"network namespaces left behind: {', '.join(left)}", pytrace=False)


@pytest.fixture
def netns(netns_registry: Registry) -> Iterator[MakeNamespace]:
    """Makes named namespaces, removed after the test."""
    with ExitStack() as stack:

        def make(label: str = "ns") -> Namespace:
            made = netns_registry.make(label)
            stack.callback(made.remove)
            return made

        yield make


@pytest.fixture
def make_pod(netns: MakeNamespace) -> Callable[[], Namespace]:
    """Makes namespaces for pods."""
    return lambda: netns("pod")


@pytest.fixture
def pod(make_pod: Callable[[], Namespace]) -> Namespace:
    """A namespace for a pod."""
    return make_pod()


@pytest.fixture
def underlay(netns: MakeNamespace) -> Underlay:
    """The network of the nodes' uplinks."""
    return Underlay(netns("underlay"))


@pytest.fixture
def make_node(netns: MakeNamespace, underlay: Underlay) -> Iterator[MakeNode]:
    """Makes nodes on the underlay."""
    with ExitStack() as stack:

        def make(*, mtu: int = 1500) -> Node:
            node = Node(netns("node"), underlay, mtu)
            stack.callback(node.remove)
            return node

        yield make


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """A node."""
    return make_node()


@pytest.fixture(scope="session")
def podwire_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of podwire's executables, and of the names that it can be started under."""
    directory = tmp_path_factory.mktemp("podwire-bin")
    installed = Path(sys.executable).parent
    for name in ("podwire", "podwire-ipam", *NAMES):
        program = installed / (name if name.startswith("podwire") else "podwire")
        assert program.exists(), f"{program} is missing: install podwire into this environment"
        (directory / name).symlink_to(program)
    return directory


@pytest.fixture(scope="session")
def newest_reference_bin() -> Path:
    """Directory of the newest reference plugins; for tests that need "newest-reference"."""
    return tools.go_tools_directory()


def pytest_report_header() -> list[str]:
    return tools.report()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests whose tools are missing."""
    absent = [item for item in items if _needs(item) & tools.missing().keys()]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def _needs(item: pytest.Item) -> set[str]:
    needed = {tool for marker in item.iter_markers("needs") for tool in marker.args}
    unknown = needed - tools.TOOLS.keys()
    assert not unknown, f"{item.nodeid} needs an unknown tool: {', '.join(unknown)}"
    return needed
