"""`portmap` does what the reference's does, seen by those who connect."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.differential.conftest import MakeWorld
from tests.netns.differential.differences import Difference, differing, unexplained
from tests.netns.differential.port_cases import PORT_CASES, PortCase
from tests.netns.differential.port_differences import (
    BEHIND_REFERENCE_DIFFERENCES,
    PORT_DIFFERENCES,
)
from tests.netns.differential.port_world import PortWorld
from tests.netns.differential.test_differential import marks

Observe = Callable[[Path, PortCase, Path], set[str]]


@pytest.fixture(scope="session")
def seen() -> dict[tuple[Path, Path, str], set[str]]:
    """What was observed so far; tests of one case run in one process (`xdist_group`)."""
    return {}


@pytest.fixture
def observed(make_world: MakeWorld, seen: dict[tuple[Path, Path, str], set[str]]) -> Observe:
    def observe(folder: Path, case: PortCase, mains: Path) -> set[str]:
        key = folder, mains, case.name
        if key not in seen:
            world = make_world(folder)
            world.settles = True
            seen[key] = PortWorld(world, case, folder, mains).observe()
        return seen[key]

    return observe


ALL = [
    pytest.param(reference, case, id=f"{case.name}-{reference}", marks=marks(reference, case))
    for case in PORT_CASES.values()
    for reference in case.references
]


EXAMPLES = [
    pytest.param(reference, entry, id=f"{entry.name}-{reference}", marks=marks(reference, case))
    for entry in PORT_DIFFERENCES
    for case in [PORT_CASES[entry.example]]
    for reference in case.references
    if reference in entry.references
]
BEHIND_REFERENCE = [
    pytest.param("newest", PORT_CASES[name], id=name, marks=marks("newest", PORT_CASES[name]))
    for name in ("plain", "ptp-snat-off", "nftables-masq-all")
]


@pytest.mark.parametrize(("reference", "case"), ALL, indirect=["reference"])
def test_same_connections(
    observed: Observe, podwire_bin: Path, reference: tuple[str, Path], case: PortCase
) -> None:
    which, plugins = reference
    theirs, ours = observed(plugins, case, plugins), observed(podwire_bin, case, podwire_bin)
    lines = differing(theirs, ours)
    left = unexplained(which, case.name, lines, PORT_DIFFERENCES)
    assert not left, "\n".join(left)


@pytest.mark.parametrize(("reference", "case"), BEHIND_REFERENCE, indirect=["reference"])
def test_same_connections_behind_the_reference(
    observed: Observe, podwire_bin: Path, reference: tuple[str, Path], case: PortCase
) -> None:
    """Only `portmap` is podwire's."""
    which, plugins = reference
    theirs, ours = observed(plugins, case, plugins), observed(podwire_bin, case, plugins)
    left = unexplained(which, case.name, differing(theirs, ours), BEHIND_REFERENCE_DIFFERENCES)
    assert not left, "\n".join(left)


@pytest.mark.parametrize(("reference", "difference"), EXAMPLES, indirect=["reference"])
def test_deliberate_difference_does_occur(
    observed: Observe, podwire_bin: Path, reference: tuple[str, Path], difference: Difference
) -> None:
    which, plugins = reference
    case = PORT_CASES[difference.example]
    lines = differing(observed(plugins, case, plugins), observed(podwire_bin, case, podwire_bin))
    assert any(difference.explains(which, case.name, line) for line in lines), difference.why
