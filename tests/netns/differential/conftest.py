"""Two equal worlds, so that nothing but the plugin tells them apart."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.differential.cases import Case
from tests.netns.differential.facts import facts
from tests.netns.differential.world import World, observe
from tests.pytest_netns import MakeNamespace, Namespace, Node, Underlay

MakeWorld = Callable[[Path], World]
Observe = Callable[[Path, Case], set[str]]

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


@pytest.fixture(scope="session")
def known_facts() -> dict[tuple[Path, str], set[str]]:
    """What was observed so far; tests of one case run in one process (`xdist_group`)."""
    return {}


@pytest.fixture
def facts_of(make_world: MakeWorld, known_facts: dict[tuple[Path, str], set[str]]) -> Observe:
    """Observes a case with the plugins of a directory, once in the session."""

    def observe_once(plugins: Path, case: Case) -> set[str]:
        key = (plugins, case.name)
        if key not in known_facts:
            known_facts[key] = facts(observe(make_world(plugins), case))
        return known_facts[key]

    return observe_once


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """Name and directory of the reference plugins that the test's parameter names."""
    if request.param == "debian":
        return "debian", DEBIAN_REFERENCE
    newest = request.getfixturevalue("newest_reference_bin")
    assert isinstance(newest, Path)
    return "newest", newest
