"""The suite's own bookkeeping."""

from __future__ import annotations

import pytest

from .suite import Suite

pytestmark = pytest.mark.cni_needs("any")


def test_known_shortfalls_name_existing_tests(suite: Suite, collected: frozenset[str]) -> None:
    """Every line of --cni-known-shortfalls belongs to a test; judged when all were collected."""
    unused = [s.pattern for s in suite.shortfalls if not any(map(s.covers, collected))]
    files = {test_id.partition("::")[0] for test_id in collected}
    stale = [pattern for pattern in unused if pattern.partition("::")[0] in files]
    assert not stale, f"no such test: {stale}"


def test_ids_can_be_written_down(collected: frozenset[str]) -> None:
    """A line of --cni-known-shortfalls ends the ID at the first blank; `*` is its wildcard."""
    assert not [test_id for test_id in collected if " " in test_id or "*" in test_id]
