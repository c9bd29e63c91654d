"""The project's pages, and what a test reads from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    *sorted(DOCS.glob("*.md")),
    ROOT / "tests" / "README.md",
    ROOT / "tests" / "conformance" / "README.md",
    ROOT / "cni_plugin" / "shim" / "PROTOCOL.md",
)

_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")


def read(name: str) -> str:
    """A page of docs/."""
    return (DOCS / name).read_text()


def section(text: str, heading: str) -> str:
    """What is below a heading, down to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}$\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in a text, cells without blanks around; headers are left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    rulers = {n for n, row in enumerate(cells) if set("".join(row)) <= set("-:")}
    return [row for n, row in enumerate(cells) if n not in rulers and n + 1 not in rulers]


def codes(cell: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    return _CODE.findall(_without_blocks(cell))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {_anchor(title) for _, title in _HEADING.findall(_without_blocks(path.read_text()))}


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _without_blocks(text: str) -> str:
    """The text without fenced blocks, in which # is no heading."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(path: Path) -> Iterator[str]:
    """The targets of a page's links, without those to other sites."""
    text = _without_blocks(path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", text, re.MULTILINE):
        found = target[0] or target[1]
        if not re.match(r"[a-z]+:", found):
            yield found


def commands(path: Path) -> Iterator[str]:
    """What a page shows as commands: in backticks, and the lines of blocks."""
    text = path.read_text()
    blocks = re.findall(r"^```.*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    for line in [*indented, *(line for block in blocks for line in block.splitlines())]:
        yield line.strip().removeprefix("$ ")
    yield from _CODE.findall(_without_blocks(text))
