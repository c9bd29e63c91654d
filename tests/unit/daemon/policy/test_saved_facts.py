"""What the daemon knows of policies, in a file."""

from __future__ import annotations

from pathlib import Path

from daemon.policy.model import Facts, Policy
from daemon.policy.saved_facts import open_saved, read_facts

FACTS = Facts({("app", "p"): Policy("app", "p", rules={"ingress": ()})})


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    file = open_saved(tmp_path / "policy.json")
    file.update(FACTS)
    file.close()
    assert read_facts(file.path).policies.keys() == FACTS.policies.keys()
