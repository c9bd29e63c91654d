"""docs/architecture.md names modules that exist, and every package."""

from __future__ import annotations

import re

from tests import ROOT
from tests.unit.docs.pages import codes, read, rows, section

PAGE = read("architecture.md")
PACKAGES = section(PAGE, "Packages")


def test_every_package_has_a_paragraph() -> None:
    packages = {f"{p.parent.relative_to(ROOT)}/" for p in ROOT.glob("daemon/*/__init__.py")}
    packages |= {"kernel/", "ipam/", "cni_plugin/", "ctl/"}
    assert packages <= set(re.findall(r"\*\*([^*]+)\*\*", PACKAGES))


def test_modules_of_a_package_are_in_it() -> None:
    paragraphs = re.findall(r"^\*\*(\S+/)\*\*(.*?)(?=^\*\*|\Z)", PACKAGES, re.MULTILINE | re.DOTALL)
    assert paragraphs
    for folder, text in paragraphs:
        for name in codes(text):
            if re.fullmatch(r"\w+(\.py|/)", name):
                assert (ROOT / folder / name).exists(), f"{folder}{name}"


def test_what_is_to_be_opened_exists() -> None:
    found = rows(section(PAGE, "Where to make a change"))
    assert len(found) > 20
    for change, places in found:
        paths = [code for code in codes(places) if "/" in code]
        assert paths, change
        for path in paths:
            assert (ROOT / path).exists(), path
