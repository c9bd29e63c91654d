"""Result and kernel state of podwire, started as a reference plugin, equal the reference's."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.netns.differential.cases import CASES, Case
from tests.netns.differential.conftest import Observe
from tests.netns.differential.differences import DIFFERENCES, Difference, differing, unexplained
from tests.netns.differential.port_cases import PortCase


def marks(reference: str, case: Case | PortCase) -> Sequence[pytest.MarkDecorator]:
    group = pytest.mark.xdist_group(case.name)
    return (group, pytest.mark.needs("newest-reference")) if reference == "newest" else (group,)


ALL = [
    pytest.param(reference, case, id=f"{case.name}-{reference}", marks=marks(reference, case))
    for case in CASES.values()
    for reference in case.references
]

EXAMPLES = [
    pytest.param(reference, entry, id=f"{entry.name}-{reference}", marks=marks(reference, case))
    for entry in DIFFERENCES
    for case in [CASES[entry.example]]
    for reference in case.references
    if reference in entry.references
]


@pytest.mark.parametrize(("reference", "case"), ALL, indirect=["reference"])
def test_same_result_and_same_kernel_state(
    facts_of: Observe, podwire_bin: Path, reference: tuple[str, Path], case: Case
) -> None:
    which, plugins = reference
    lines = differing(facts_of(plugins, case), facts_of(podwire_bin, case))
    left = unexplained(which, case.name, lines, DIFFERENCES)
    assert not left, "\n".join(left)


@pytest.mark.parametrize(("reference", "difference"), EXAMPLES, indirect=["reference"])
def test_deliberate_difference_does_occur(
    facts_of: Observe, podwire_bin: Path, reference: tuple[str, Path], difference: Difference
) -> None:
    which, plugins = reference
    case = CASES[difference.example]
    lines = differing(facts_of(plugins, case), facts_of(podwire_bin, case))
    assert any(difference.explains(which, case.name, line) for line in lines), difference.why
