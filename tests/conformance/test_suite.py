"""The suite's own bookkeeping."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from .namespaces import PREFIX, RUN_NETNS, run_ip, sweep
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


def test_suites_that_start_together_sweep_the_same_leftovers() -> None:
    """Namespaces of a killed suite are removed once, whoever comes first."""
    with subprocess.Popen(["true"]) as dead:
        pass
    left = [f"{PREFIX}-{dead.pid}-{number}" for number in range(8)]
    for name in left:
        run_ip("netns", "add", name)
    with ThreadPoolExecutor(4) as together:
        for done in [together.submit(sweep) for _ in range(4)]:
            done.result()
    assert not [name for name in left if (RUN_NETNS / name).exists()]
