"""Two equal worlds, so that nothing but the plugin tells them apart."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.differential.world import World
from tests.pytest_netns import MakeNamespace, Namespace, Node, Underlay

MakeWorld = Callable[[Path], World]

DEBIAN_REFERENCE = Path("/usr/lib/cni")


@pytest.fixture
def make_world(
    netns: MakeNamespace, make_pod: Callable[[], Namespace], request: pytest.FixtureRequest
) -> MakeWorld:
    """Makes worlds: the same addresses in each, since each has an underlay of its own."""

    def make(plugins: Path) -> World:
        underlay = Underlay(netns("underlay"))
        node = Node(netns("node"), underlay, mtu=1500)
        request.addfinalizer(node.remove)
        return World(underlay, node, plugins, make_pod)

    return make


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Name and directory of the reference plugins that the test's parameter names."""
    if request.param == "debian":
        return "debian", DEBIAN_REFERENCE
    newest = request.getfixturevalue("newest_reference_bin")
    assert isinstance(newest, Path)
    return "newest", newest
