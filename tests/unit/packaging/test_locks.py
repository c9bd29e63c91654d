"""packaging/locks: every package is pinned with hashes, and the pins satisfy pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ROOT / "packaging" / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
RUNTIME = [*PROJECT["project"]["dependencies"], *EXTRAS["kubernetes"], *EXTRAS["etcd"]]
RANGES = {
    "build": ["pip", *PROJECT["build-system"]["requires"]],
    "runtime": RUNTIME,
    "test": [*RUNTIME, *EXTRAS["test"]],
}
PYTHONS = ("3.11", "3.12", "3.13")
"""Debian 12 has the first of these, Debian 13 the last."""


@dataclass(frozen=True)
class Pin:
    """An entry of a lock file."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The one version that is allowed. Raises ValueError where there may be others."""
        found = re.fullmatch(r"==([^*,]+)", str(self.requirement.specifier))
        if found is None:
            raise ValueError(f"{self.requirement} is not pinned")
        return found[1]

    def is_installed(self, python: str) -> bool:
        """Whether this Python on Linux installs it."""
        marker = self.requirement.marker
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        return marker is None or marker.evaluate({**environment, "sys_platform": "linux"})


def read_lock(name: str) -> list[Pin]:
    text = re.sub(r"^ *#.*\n", "", (LOCKS / f"{name}.txt").read_text(), flags=re.MULTILINE)
    pins = []
    for line in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        pins.append(Pin(Requirement(requirement), tuple(hashes)))
    return pins


def test_there_is_a_lock_for_each_purpose_and_no_other_file() -> None:
    assert sorted(path.name for path in LOCKS.iterdir()) == sorted(f"{name}.txt" for name in RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_every_package_has_one_version_and_hashes(name: str) -> None:
    pins = read_lock(name)
    assert pins
    for pin in pins:
        assert pin.version
        assert pin.hashes, pin.requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in pin.hashes)


@pytest.mark.parametrize("name", RANGES)
def test_a_lock_names_no_index_and_no_folder(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)|/(?!locks/)[a-z]+/", text, re.MULTILINE)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", RANGES)
def test_the_pins_satisfy_the_ranges_of_pyproject(name: str, python: str) -> None:
    versions = {pin.name: pin.version for pin in read_lock(name) if pin.is_installed(python)}
    for requirement in map(Requirement, RANGES[name]):
        found = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(found), f"{requirement}: {found} is locked"


@pytest.mark.parametrize("python", PYTHONS)
def test_a_package_has_the_same_version_in_all_locks(python: str) -> None:
    versions: dict[str, set[str]] = {}
    for name in RANGES:
        for pin in read_lock(name):
            if pin.is_installed(python):
                versions.setdefault(pin.name, set()).add(pin.version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}
