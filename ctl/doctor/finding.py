"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad a finding is, the worst first.

    broken: packets of pods get lost, or pods cannot be attached. degraded: it works, but something
    is missing, or will fail later. notice: worth knowing; nothing is wrong now.
    """

    BROKEN = 0
    DEGRADED = 1
    NOTICE = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    check: the area that found it. where: the node, or the pod. do: the one thing to do.
    nodes: other nodes that it is about, beside where.
    names: beginnings or ends of the object's name in the journal, the most certain first.
    since: seconds since 1970, None where unknown; who: what did it, empty where unknown.
    fixable: whether `doctor --fix` may repair it.
    """

    check: str
    severity: Severity
    what: str
    do: str
    where: str = ""
    names: tuple[str, ...] = ()
    since: float | None = None
    who: str = ""
    fixable: bool = False
    nodes: tuple[str, ...] = ()


def split_remedy(sentence: str) -> tuple[str, str]:
    """A fault and what to do: the daemon's sentences name the latter last, after a colon."""
    what, colon, remedy = sentence.rpartition(": ")
    return (what, remedy) if colon else (sentence, "")
