"""VERSION (SPEC section 2 "VERSION", section 5 "VERSION Success")."""

from __future__ import annotations

import re

import pytest

from .network import Network, encode
from .request import Request
from .spec import VERSIONS

pytestmark = pytest.mark.cni_needs("any")


def probe(version: str) -> Request:
    return Request("VERSION", stdin=encode({"cniVersion": version}))


def test_version_lists_versions(net: Network) -> None:
    """Section 5, VERSION Success: both keys MUST be there."""
    found = net.run(probe("1.0.0")).result()
    assert isinstance(found.get("cniVersion"), str), found
    versions = found.get("supportedVersions")
    assert isinstance(versions, list), found
    assert versions, found
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", v) for v in versions), versions
    assert len(set(versions)) == len(versions), versions


def test_version_lists_a_released_version(net: Network) -> None:
    """SPEC "Released versions": at least one that a runtime can select."""
    found = net.run(probe("1.0.0")).result()
    assert set(found["supportedVersions"]) & set(VERSIONS), found


def test_version_repeats_the_given_version(net: Network) -> None:
    """Section 5, VERSION Success: cniVersion MUST be the value specified on input."""
    spoken = VERSIONS[1:]
    answers = [net.run(probe(version)).result()["cniVersion"] for version in spoken]
    assert answers == list(spoken)


def test_version_answers_a_caller_of_the_future(net: Network) -> None:
    """Section 2, VERSION: it is how versions are probed, so no version is refused (SHOULD)."""
    found = net.run(probe("9.9.9")).result()
    assert set(found["supportedVersions"]) & set(VERSIONS), found


def test_version_needs_no_input(net: Network) -> None:
    """0.2.0 to 0.4.0, "Report version": parameters NONE."""
    found = net.run(Request("VERSION")).result()
    assert found["cniVersion"] in found["supportedVersions"], found


def test_version_is_the_same_each_time(net: Network) -> None:
    """Section 1, Version considerations: a runtime MAY remember the answer."""
    first, second = (net.run(probe("1.0.0")).result() for _ in range(2))
    assert first == second


def test_version_changes_nothing(net: Network) -> None:
    """Section 2, VERSION: a probe."""
    with net.unchanged():
        net.run(probe("1.0.0")).result()
