"""Configurations of `portmap` that are wrong: what is refused, what a refusal leaves, and DEL."""

from pathlib import Path
from typing import Any

import pytest

from tests.netns.differential.port_cases import ODD_CASES, PORT_CASES, OddCase
from tests.pytest_netns import CniResult, Namespace, Node

PLAIN = PORT_CASES["plain"]
MAPPED = {"runtimeConfig": {"portMappings": list(PLAIN.mappings[0])}}


def call(node: Node, program: Path, verb: str, case: OddCase, pod: Namespace, first: Any) -> Any:
    conf = {**PLAIN.conf("portmap"), **MAPPED, "prevResult": first, **case.keys}
    known = {key: value for key, value in conf.items() if value is not None}
    return node.cni(verb, program, known, netns=pod.path)


def attach(node: Node, plugins: Path, pod: Namespace) -> Any:
    answer = node.cni("ADD", plugins / "bridge", PLAIN.conf("bridge"), netns=pod.path)
    assert answer.code == 0, answer
    return answer.json


@pytest.mark.needs("newest-reference")
@pytest.mark.parametrize("case", ODD_CASES, ids=lambda case: case.name)
def test_what_is_refused(
    node: Node, pod: Namespace, newest_reference_bin: Path, podwire_bin: Path, case: OddCase
) -> None:
    first = attach(node, newest_reference_bin, pod)
    before = node.ns.run(["nft", "list", "ruleset"]).stdout
    added = call(node, podwire_bin / "portmap", "ADD", case, pod, first)
    assert code(added) == case.code, added
    if case.code:
        assert node.ns.run(["nft", "list", "ruleset"]).stdout == before
    checked = call(node, podwire_bin / "portmap", "CHECK", case, pod, first)
    assert code(checked) == case.code, checked
    for _ in range(2):
        # Whatever has become of the configuration since: what is there is removed.
        assert call(node, podwire_bin / "portmap", "DEL", case, pod, first).code == 0
    assert node.ns.run(["nft", "list", "ruleset"]).stdout == before
    reference = call(node, newest_reference_bin / "portmap", "ADD", case, pod, first)
    assert (bool(reference.code) == bool(case.code)) == (not case.better), reference


def code(answer: CniResult) -> int:
    return int(answer.json["code"]) if answer.code else 0
