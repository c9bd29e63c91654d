"""Result and kernel state of podwire, started as a reference plugin, equal the reference's."""

from pathlib import Path

import pytest

from tests.netns.differential.cases import CASES, Case
from tests.netns.differential.conftest import MakeWorld
from tests.netns.differential.differences import DIFFERENCES, Difference, differing, unexplained
from tests.netns.differential.facts import facts
from tests.netns.differential.world import observe

NEWEST = pytest.mark.needs("newest-reference")

ALL = [
    pytest.param(reference, case, id=f"{case.name}-{reference}", marks=marks)
    for case in CASES.values()
    for reference, marks in (("debian", ()), ("newest", NEWEST))
    if reference == "newest" or not case.newest_only
]

EXAMPLES = [
    pytest.param(reference, entry, id=f"{entry.name}-{reference}", marks=NEWEST if newest else ())
    for entry in DIFFERENCES
    for newest, reference in enumerate(("debian", "newest"))
    if reference in entry.references and not (CASES[entry.example].newest_only and not newest)
]


@pytest.mark.parametrize(("reference", "case"), ALL, indirect=["reference"])
def test_same_result_and_same_kernel_state(
    make_world: MakeWorld, podwire_bin: Path, reference: tuple[str, Path], case: Case
) -> None:
    which, plugins = reference
    theirs = facts(observe(make_world(plugins), case))
    ours = facts(observe(make_world(podwire_bin), case))
    left = unexplained(which, case, differing(theirs, ours))
    assert not left, "\n".join(left)


@pytest.mark.parametrize(("reference", "difference"), EXAMPLES, indirect=["reference"])
def test_deliberate_difference_does_occur(
    make_world: MakeWorld, podwire_bin: Path, reference: tuple[str, Path], difference: Difference
) -> None:
    which, plugins = reference
    case = CASES[difference.example]
    theirs = facts(observe(make_world(plugins), case))
    ours = facts(observe(make_world(podwire_bin), case))
    lines = differing(theirs, ours)
    assert any(difference.explains(which, case, line) for line in lines), difference.why
