"""Links lead somewhere, and commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import ROOT
from tests.unit.docs.pages import DOCS, PAGES, anchors, commands, links

IDS = [str(path.relative_to(ROOT)) for path in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_what_exists(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    found = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert found >= set(DOCS.glob("*.md"))


TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_targets_of_make_exist(page: Path) -> None:
    for command in commands(page):
        found = re.search(r"(?:^|[\s;&|])make ([a-z0-9-]+)", command)
        if found:
            assert found[1] in TARGETS, command


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_files_of_the_project_exist(page: Path) -> None:
    """Paths like packaging/install in commands, where they begin with a folder of the project."""
    folders = {p.name for p in ROOT.iterdir() if p.is_dir()} - {"build"}
    for command in commands(page):
        for word in re.findall(r"(?<![\w/.*…-])[\w.-]+/[\w./*-]+", command):
            if word.split("/")[0] in folders and "*" not in word:
                found = (ROOT / word).exists() or (ROOT / f"{word}.py").exists()
                assert found, f"{word} in {command!r}"
