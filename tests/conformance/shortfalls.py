"""Notes of what a plugin is known not to fulfil.

Each line of the file names a test (`*` stands for any text) and, after blanks, says in a
sentence why it fails. A listed test must fail: one that passes is reported as an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


class ShortfallError(Exception):
    """The file cannot be read or a line has no reason; the message says where."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """One line: which tests, and why they fail."""

    pattern: str
    reason: str

    def covers(self, test_id: str) -> bool:
        expression = ".*".join(re.escape(part) for part in self.pattern.split("*"))
        return re.fullmatch(expression, test_id) is not None


def read(path: Path) -> tuple[Shortfall, ...]:
    """The lines of the file; raises ShortfallError."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ShortfallError(f"{path}: {error}") from error
    numbered = ((n, line.strip()) for n, line in enumerate(lines, start=1))
    return tuple(_parse(path, n, line) for n, line in numbered if line and line[0] != "#")


def _parse(path: Path, number: int, line: str) -> Shortfall:
    test_id, _, reason = line.partition(" ")
    if not reason.strip():
        raise ShortfallError(f"{path}:{number}: no reason after {test_id!r}")
    return Shortfall(test_id, reason.strip())


def short_id(nodeid: str) -> str:
    """`file.py::test[param]`, the same wherever the suite's folder lies."""
    path, _, test = nodeid.partition("::")
    return f"{path.rsplit('/', 1)[-1]}::{test}"
