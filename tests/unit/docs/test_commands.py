"""Commands and options that the pages show exist."""

from __future__ import annotations

import re
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cache
from importlib import import_module
from io import StringIO
from pathlib import Path

import pytest

from tests import ROOT
from tests.bench.sections import SECTIONS
from tests.unit.docs.pages import PAGES, commands

PROGRAMS = {
    "podwirectl": "ctl.__main__",
    "podwired": "daemon.__main__",
    "podwire-ipam": "ipam.cli",
}
IDS = [str(path.relative_to(ROOT)) for path in PAGES]


def shown(page: Path, program: str) -> set[tuple[str, str]]:
    """Verb and the whole command, where one follows the program's name."""
    found = (re.match(rf"(?:\S+/)?{program} ([a-z][a-z-]*)\b.*", c) for c in commands(page))
    return {(m[1], m[0]) for m in found if m}


@cache
def help_of(program: str, verb: str) -> str:
    """The verb's help; empty where there is no such verb."""
    main = import_module(PROGRAMS[program]).main
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), suppress(SystemExit):
        main([verb, "--help"])
    return "" if err.getvalue() else out.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_verbs_and_options_exist(page: Path, program: str) -> None:
    for verb, command in shown(page, program):
        text = help_of(program, verb)
        assert text, command
        for option in re.findall(r"(?<=\s)--?[a-z][a-z-]*", command):
            assert option in text, command


def test_every_verb_of_podwirectl_is_on_the_page_for_operators() -> None:
    from ctl.commands import COMMANDS

    page = ROOT / "docs" / "operations.md"
    assert {verb for verb, _ in shown(page, "podwirectl")} == set(COMMANDS)


@pytest.mark.parametrize("script", ["install", "uninstall"])
def test_options_of_the_installer_exist(script: str) -> None:
    text = (ROOT / "packaging" / script).read_text()
    for page in PAGES:
        for command in commands(page):
            if re.match(rf"packaging/{script}\b", command):
                for option in re.findall(r"--[a-z-]+", command):
                    assert f"{option})" in text, command


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_sections_of_the_benchmark_exist(page: Path) -> None:
    for name in re.findall(r"--only ([\w-]+)", page.read_text()):
        assert name in SECTIONS
