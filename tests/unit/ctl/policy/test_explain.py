"""`check` decides as the kernel's rules do, and names the rule."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.policy.ends import End, find_end
from ctl.policy.explain import explain
from daemon.options import Unusable
from tests.unit.daemon.policy.oracle import is_allowed
from tests.unit.daemon.policy.test_compile import NUMBERS, clusters, facts_of


def end_of(facts: Any, thing: Any) -> End:
    text = thing if isinstance(thing, str) else thing["status"]["podIPs"][0]["ip"]
    return find_end(facts, text)


@settings(max_examples=60)
@given(clusters(), st.sampled_from(sorted(NUMBERS)), st.sampled_from((79, 80, 90)))
def test_verdicts_are_those_of_the_specification(
    cluster: dict[str, Any], name: str, number: int
) -> None:
    facts = facts_of(cluster)
    for source in (*cluster["pods"], "192.0.2.7"):
        for target in cluster["pods"]:
            if source is target:
                continue
            ends = end_of(facts, source), end_of(facts, target)
            verdicts = explain(facts, *ends, NUMBERS[name], number)
            decided = all(verdict.allowed for verdict in verdicts)
            assert decided == is_allowed(cluster, source, target, name, number)
            assert all(v.rule for v in verdicts if v.allowed and v.policies)


def test_a_pod_is_found_by_its_name_or_its_address() -> None:
    pods = [
        {
            "metadata": {"namespace": space, "name": "web", "labels": {}},
            "spec": {},
            "status": {"podIPs": [{"ip": ip}]},
        }
        for space, ip in (("a", "10.0.0.1"), ("b", "10.0.0.2"))
    ]
    facts = facts_of({"pods": pods, "policies": [], "namespaces": {}})
    assert find_end(facts, "a/web").address == ip_address("10.0.0.1")
    assert str(find_end(facts, "10.0.0.2")) == "b/web (10.0.0.2)"
    with pytest.raises(Unusable, match="several pods: a/web, b/web"):
        find_end(facts, "web")
    with pytest.raises(Unusable, match="no pod 'c/web'"):
        find_end(facts, "c/web")
