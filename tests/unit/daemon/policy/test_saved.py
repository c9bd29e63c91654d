"""What the daemon knows of policies, in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.policy import saved
from daemon.policy.model import Facts, Policy
from daemon.policy.saved import SavedFacts
from tests.unit.daemon.waiting import wait_until

FACTS = Facts({("app", "p"): Policy("app", "p", rules={"ingress": ()})})


def test_the_folder_is_made(tmp_path: Path) -> None:
    made = SavedFacts(tmp_path / "data" / "policy.json")
    made.change(FACTS)
    made.close()
    assert made.fault == ""
    assert made.read().policies.keys() == FACTS.policies.keys()


def test_what_could_not_be_written_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved, "SAVE_GAP", 0.0)
    folder = tmp_path / "data"
    folder.write_text("a file in its place")
    made = SavedFacts(folder / "policy.json")
    made.change(FACTS)
    made.write()
    wait_until(lambda: made.fault)
    folder.unlink()

    def is_written() -> bool:
        made.write()
        return not made.fault

    wait_until(is_written)
    made.close()
    assert made.read().policies.keys() == FACTS.policies.keys()
