"""Objects are the same after they were saved, whatever others wrote in them."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from daemon.policy.model import Facts, Policy
from daemon.policy.objects import facts_of, parse_policy, render_facts

WEB = {"matchLabels": {"app": "web"}}
LOOP: list[Any] = []
LOOP.append(LOOP)


def parse(spec: Any, **metadata: Any) -> Policy:
    """The policy, which is the same once it was saved."""
    thing = {"metadata": {"namespace": "a", "name": "p", **metadata}, "spec": spec}
    policy = parse_policy(thing)
    facts = Facts({policy.key: policy})
    assert facts_of([json.loads(render_facts(facts))]) == facts
    return policy


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"tiers": [], "podSelector": WEB}, "spec.tiers [] is not known to podwire"),
        ({"podSelector": WEB, "ingress": [{"to": []}]}, "is not known to podwire"),
        ({"podSelector": WEB, "ingress": [{"from": [{}]}]}, "needs ipBlock"),
        ({"podSelector": WEB, "ingress": b"x"}, "must be a list"),
        ({"podSelector": WEB, "policyTypes": [date(2000, 1, 1)]}, "must be Ingress or Egress"),
    ],
)
def test_a_fault_closes_the_selected_pods_alone_and_stays(spec: Any, fault: str) -> None:
    policy = parse(spec)
    assert fault in policy.fault
    assert str(policy.pods) == "app=web"
    assert policy.rules.get("ingress") == ()


@pytest.mark.parametrize(
    "spec",
    [
        {"podSelector": {"matchLabel": {"app": "web"}}},
        {"podSelector": {"matchLabels": {"released": date(2000, 1, 1)}}},
        {"podSelector": {"matchLabels": b"x"}},
        {"podSelector": WEB, "ingress": LOOP},
        {"podSelector": WEB, date(2000, 1, 1): 1},
        [1],
    ],
)
def test_a_fault_without_a_selector_closes_the_namespace_and_stays(spec: Any) -> None:
    policy = parse(spec)
    assert policy.fault
    assert str(policy.pods) == "all"
    assert policy.rules == {"ingress": (), "egress": ()}


def test_an_empty_spec_and_labels_that_are_numbers_are_the_same_once_saved() -> None:
    assert parse(None).rules == {"ingress": ()}
    assert str(parse({"podSelector": {"matchLabels": {1: "x"}}}).pods) == "1=x"


def test_annotations_that_are_none_leave_a_policy_enforced() -> None:
    policy = parse({"podSelector": WEB}, annotations=["podwire.dev/policy-mode"])
    assert (policy.monitors, policy.fault, policy.rules) == (False, "", {"ingress": ()})
