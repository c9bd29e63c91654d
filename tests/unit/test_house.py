"""Rules of the tree that no linter holds."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import PACKAGES, ROOT


def modules(package: str) -> Iterator[Path]:
    return (ROOT / package).rglob("*.py")


def test_no_class_name_is_used_twice_in_the_daemon() -> None:
    names = Counter(
        node.name
        for module in modules("daemon")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert {name for name, count in names.items() if count > 1} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_unit_tests_stand_where_their_module_does(package: str) -> None:
    tests = ROOT / "tests" / "unit"
    folders = {path.parent.relative_to(tests) for path in (tests / package).rglob("test_*.py")}
    assert folders
    assert {folder for folder in folders if not (ROOT / folder).is_dir()} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_is_for(package: str) -> None:
    mute = [m for m in modules(package) if not ast.get_docstring(ast.parse(m.read_text()))]
    assert mute == []
