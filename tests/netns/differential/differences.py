"""Every deliberate difference between podwire and the reference plugins.

A difference is named, explained, and forgives exactly the lines that match it; a test shows for
each that it does occur, so that no entry outlives its reason.
"""

import re
from dataclasses import dataclass

from tests.netns.differential.cases import Case


@dataclass(frozen=True, slots=True)
class Difference:
    """Lines that may differ. Patterns match whole names and lines."""

    name: str
    why: str
    lines: str
    """What differs: `- ` begins a line that only the reference has, `+ ` one that podwire has."""
    example: str
    """Case in which the difference shows."""
    cases: str = ".*"
    references: tuple[str, ...] = ("debian", "newest")

    def explains(self, reference: str, case: Case, line: str) -> bool:
        return (
            reference in self.references
            and re.fullmatch(self.cases, case.name) is not None
            and re.fullmatch(self.lines, line) is not None
        )


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "no-txqlen-0",
        "The old reference makes the pod's link with a queue of no packets; the kernel's default "
        "is 1000, as the new one has it.",
        r"[-+] pod\d+ link eth0.txqlen = \d+",
        example="bridge-gateway",
        references=("debian",),
    ),
)


def differing(reference: set[str], podwire: set[str]) -> list[str]:
    """Lines that one has and the other has not."""
    lines = [f"- {line}" for line in sorted(reference - podwire)]
    return lines + [f"+ {line}" for line in sorted(podwire - reference)]


def unexplained(reference: str, case: Case, lines: list[str]) -> list[str]:
    """The lines that differ without a reason."""
    known = DIFFERENCES
    return [
        line for line in lines if not any(entry.explains(reference, case, line) for entry in known)
    ]
