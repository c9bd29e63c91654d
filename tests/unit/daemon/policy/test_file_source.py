"""Policies in files, which anybody may have written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.files import SETTLE_SECONDS
from daemon.policy import file_source
from daemon.policy.file_source import FileSource

METADATA = {"namespace": "app", "name": "p"}
POLICY = json.dumps({"kind": "NetworkPolicy", "metadata": METADATA})


def of_old(folder: Path, now: Callable[[], float] = time.monotonic) -> FileSource:
    """A source that starts long after the files were written."""
    return FileSource(folder, now=now, today=lambda: time.time() + 60)


def written(folder: Path, spec: Any) -> FileSource:
    thing = {"kind": "NetworkPolicy", "metadata": METADATA, "spec": spec}
    (folder / "p.yaml").write_text(json.dumps(thing))
    return of_old(folder)


def test_hidden_files_are_not_read(tmp_path: Path) -> None:
    source = written(tmp_path, {"podSelector": {}})
    (tmp_path / ".#p.yaml").symlink_to("user@host.123")
    (tmp_path / ".q.yaml").write_text("kind: [")
    facts = source.take()
    assert facts, source.fault
    assert [*facts.policies] == [("app", "p")]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").mkdir()
    source = of_old(tmp_path)
    assert source.take() is None
    why = f"{tmp_path / 'q.yaml'} cannot be read: it is no regular file"
    assert source.fault == f"{why}: make it readable, or remove it"


def test_a_folder_that_comes_back_as_it_was_is_read(tmp_path: Path) -> None:
    folder, away = tmp_path / "policies", tmp_path / "away"
    folder.mkdir()
    clock = [0.0]
    written(folder, {"podSelector": {}})
    source = of_old(folder, lambda: clock[0])
    assert source.take()
    folder.rename(away)
    assert source.take() is None
    assert "cannot be read" in source.fault
    away.rename(folder)
    assert source.take() is None
    clock[0] += SETTLE_SECONDS
    assert source.take()
    assert not source.fault


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"policyTypes": ["Ingress", {}]}, "must be Ingress or Egress"),
        ({"policyTypes": [["Ingress"]]}, "must be Ingress or Egress"),
        ({"ingress": [{"ports": [{"protocol": ["TCP"]}]}]}, "must be TCP, UDP or SCTP"),
        ({"ingress": [{"ports": [{"port": [1]}]}]}, "must be a port"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": {"a": 1}}}]}]}, "must be a prefix"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "::/0", "except": {}}}]}]}, "must be a list"),
        ({"podSelector": {"matchExpressions": [{"key": [], "operator": "In"}]}}, "must be a text"),
        ({"podSelector": {"matchLabels": ["a"]}}, "must be a mapping"),
        ([1], "must be a mapping"),
    ],
)
def test_a_field_of_another_type_closes_the_pods(tmp_path: Path, spec: Any, words: str) -> None:
    source = written(tmp_path, spec)
    facts = source.take()
    assert facts, source.fault
    [policy] = facts.policies.values()
    assert words in policy.fault
    assert policy.rules


def test_a_key_that_is_no_text_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "{kind: NetworkPolicy, metadata: {namespace: app, name: p}, spec: {1: 2}}"
    )
    facts = of_old(tmp_path).take()
    assert facts
    [policy] = facts.policies.values()
    assert policy.fault == "spec.1 2 is not known to podwire"


class Watched:
    """A folder with a policy that was taken, and a clock that only the test moves."""

    def __init__(self, folder: Path) -> None:
        self.file, self.seconds = folder / "p.yaml", 0.0
        self.file.write_text(POLICY)
        self.source = of_old(folder, lambda: self.seconds)
        assert self.policies(0) == 1

    def policies(self, seconds: float = SETTLE_SECONDS) -> int | None:
        """Those in what is taken after that time; None where nothing is."""
        self.seconds += seconds
        facts = self.source.take()
        return None if facts is None else len(facts.policies)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


@pytest.mark.parametrize("half", ["", "kind: ["])
def test_a_file_that_is_being_written_is_left_alone(watched: Watched, half: str) -> None:
    watched.file.write_text(half)
    assert [watched.policies(0) for _ in range(9)] == [None] * 9
    watched.file.write_text(f"{POLICY}\n---\n{POLICY.replace('app', 'other')}")
    assert watched.policies() is None
    assert watched.policies() == 2
    assert watched.source.fault == ""


def test_files_just_written_are_not_taken_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("")
    source = FileSource(tmp_path)
    assert source.take() is None
    (tmp_path / "p.yaml").unlink()
    assert source.take() is None


def test_what_changes_while_it_is_read_is_read_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, most: int) -> bytes:
        monkeypatch.undo()
        data = path.read_bytes()
        path.write_text(POLICY)
        return data[:most]

    watched.file.write_text("")
    assert watched.policies() is None
    monkeypatch.setattr(file_source, "read_regular", read)
    assert watched.policies() is None
    assert watched.policies(0) is None
    assert watched.policies() == 1


def test_a_folder_that_comes_back_ends_the_fault(watched: Watched) -> None:
    folder, aside = watched.file.parent, watched.file.parent.with_name("aside")
    folder.rename(aside)
    assert watched.policies() is None
    assert "cannot be read" in watched.source.fault
    aside.rename(folder)
    assert watched.policies() is None
    assert watched.policies() == 1
    assert watched.source.fault == ""
