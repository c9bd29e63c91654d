"""Policies in files, which anybody may have written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from daemon.policy.file_source import FileSource

METADATA = {"namespace": "app", "name": "p"}


def written(folder: Path, spec: Any) -> FileSource:
    thing = {"kind": "NetworkPolicy", "metadata": METADATA, "spec": spec}
    (folder / "p.yaml").write_text(json.dumps(thing))
    return FileSource(folder)


def test_hidden_files_are_not_read(tmp_path: Path) -> None:
    source = written(tmp_path, {"podSelector": {}})
    (tmp_path / ".#p.yaml").symlink_to("user@host.123")
    (tmp_path / ".q.yaml").write_text("kind: [")
    facts = source.take()
    assert facts, source.fault
    assert [*facts.policies] == [("app", "p")]


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "q.yaml").mkdir()
    source = FileSource(tmp_path)
    assert source.take() is None
    why = f"{tmp_path / 'q.yaml'} cannot be read: it is no regular file"
    assert source.fault == f"{why}: make it readable, or remove it"


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
    facts = FileSource(tmp_path).take()
    assert facts
    [policy] = facts.policies.values()
    assert policy.fault == "spec.1 2 is not known to podwire"
