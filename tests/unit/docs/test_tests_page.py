"""tests/README.md names, for each package, folders that exist; and every folder of tests."""

from __future__ import annotations

from pathlib import Path

from tests import ROOT
from tests.unit.docs.pages import codes, rows, section

TEXT = (ROOT / "tests" / "README.md").read_text()
COVERED = rows(section(TEXT, "Which tests cover a package"))


def named(cells: list[str]) -> set[Path]:
    return {ROOT / code for cell in cells for code in codes(cell) if " " not in code}


def test_what_is_named_exists() -> None:
    for cell in (cell for row in COVERED for cell in row):
        for code in codes(cell):
            if "/" in code and " " not in code:
                assert (ROOT / code).exists(), code


def test_every_package_has_a_row() -> None:
    listed = {row[0].strip("`") for row in COVERED}
    packages = {"cni_plugin", "ctl", "ipam", "kernel"}
    packages |= {f"daemon/{p.parent.name}" for p in ROOT.glob("daemon/*/__init__.py")}
    assert listed >= packages


def test_every_folder_of_tests_is_named() -> None:
    folders = {p for p in (ROOT / "tests" / "netns").iterdir() if (p / "__init__.py").exists()}
    folders |= {p.parent for p in ROOT.glob("tests/*/__init__.py")} - {ROOT / "tests" / "netns"}
    mentioned = {ROOT / code for code in codes(TEXT)}
    assert folders <= mentioned
