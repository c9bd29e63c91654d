"""Compiled rules decide as the specification does, for any cluster."""

from __future__ import annotations

import tracemalloc
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.policy.compile import Compiled, LocalPod, allows, compile_rules
from daemon.policy.model import Facts
from daemon.policy.object_fields import UnusableField
from daemon.policy.objects import parse_namespace_facts, parse_pod_facts, parse_policy
from kernel.model import IPAddress
from kernel.nftables.policy_rules import Direction, Filter, PolicyRules
from tests.unit.daemon.policy.oracle import is_allowed

NAMES = ("a", "b", "c")
NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}
labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("x", "y")), max_size=2)
expression = st.one_of(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(("app", "tier")),
            "operator": st.sampled_from(("In", "NotIn")),
            "values": st.lists(st.sampled_from(("x", "y")), min_size=1, max_size=2),
        }
    ),
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(("app", "tier")),
            "operator": st.sampled_from(("Exists", "DoesNotExist")),
        }
    ),
)
selector = st.fixed_dictionaries(
    {}, optional={"matchLabels": labels, "matchExpressions": st.lists(expression, max_size=1)}
)
blocks = st.sampled_from(
    (
        {"cidr": "0.0.0.0/0"},
        {"cidr": "::/0"},
        {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/30"]},
        {"cidr": "10.0.0.0/29", "except": ["10.0.0.2/32", "10.0.0.0/32"]},
        {"cidr": "10.0.0.1/32"},
        {"cidr": "192.0.2.0/24"},
        {"cidr": "fd00::/124", "except": ["fd00::2/128"]},
    )
)
peer = st.one_of(
    st.fixed_dictionaries({"ipBlock": blocks}),
    st.fixed_dictionaries({"podSelector": selector}),
    st.fixed_dictionaries({"namespaceSelector": selector}),
    st.fixed_dictionaries({"namespaceSelector": selector, "podSelector": selector}),
)
protocol = st.sampled_from(("TCP", "UDP", "SCTP"))
port = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": protocol}),
    st.fixed_dictionaries(
        {"port": st.sampled_from((80, 81, "web"))}, optional={"protocol": protocol}
    ),
    st.fixed_dictionaries(
        {"port": st.just(79), "endPort": st.sampled_from((79, 80, 90))},
        optional={"protocol": protocol},
    ),
)


def rule(peers: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {}, optional={peers: st.lists(peer, max_size=2), "ports": st.lists(port, max_size=2)}
    )


spec = st.fixed_dictionaries(
    {"podSelector": selector},
    optional={
        "policyTypes": st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
        "ingress": st.lists(rule("from"), max_size=2),
        "egress": st.lists(rule("to"), max_size=2),
    },
)


@st.composite
def clusters(draw: st.DrawFn) -> dict[str, Any]:
    policies = [
        {"metadata": {"namespace": draw(st.sampled_from(NAMES)), "name": f"n{n}"}, "spec": each}
        for n, each in enumerate(draw(st.lists(spec, max_size=4)))
    ]
    namespaces = {name: draw(labels) for name in NAMES}
    pods = [_pod(draw, number) for number in range(1, 5)]
    return {"pods": pods, "policies": policies, "namespaces": namespaces}


def _pod(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """A pod with an address of one family."""
    port = {"name": "web", "containerPort": draw(st.sampled_from((80, 90))), "protocol": "TCP"}
    address = f"10.0.0.{number}" if number % 2 else f"fd00::{number}"
    return {
        "metadata": {
            "namespace": draw(st.sampled_from(NAMES)),
            "name": f"p{number}",
            "labels": draw(labels),
        },
        "spec": {"containers": [{"ports": [port]}]},
        "status": {"podIPs": [{"ip": address}]},
    }


def facts_of(cluster: dict[str, Any]) -> Facts:
    policies = [parse_policy(thing) for thing in cluster["policies"]]
    pods = [parse_pod_facts(thing) for thing in cluster["pods"]]
    namespaces = [
        parse_namespace_facts({"metadata": {"name": name, "labels": each}})
        for name, each in cluster["namespaces"].items()
    ]
    return Facts(
        {p.key: p for p in policies},
        {n.name: n for n in namespaces},
        {p.key: p for p in pods if p is not None},
    )


def local_of(facts: Facts) -> list[LocalPod]:
    return [LocalPod(f"pw{pod.name}", pod.key, pod.addresses) for pod in facts.pods.values()]


def link_of(pod: Any) -> str:
    return f"pw{pod['metadata']['name']}"


def address_of(end: Any) -> IPAddress:
    return ip_address(end if isinstance(end, str) else end["status"]["podIPs"][0]["ip"])


def is_let_through(
    rules: PolicyRules, source: Any, target: Any, protocol_number: int, number: int
) -> bool:
    ends: tuple[tuple[Direction, Any, Any], ...] = (
        ("egress", source, target),
        ("ingress", target, source),
    )
    return all(
        allows(rules, direction, link_of(own), address_of(peer), protocol_number, number)
        for direction, own, peer in ends
        if not isinstance(own, str)
    )


@settings(max_examples=150)
@given(clusters(), st.sampled_from(sorted(NUMBERS)), st.sampled_from((79, 80, 81, 90)))
def test_rules_decide_as_the_specification_does(
    cluster: dict[str, Any], name: str, number: int
) -> None:
    facts = facts_of(cluster)
    found = compile_rules(facts, local_of(facts))
    assert not found.faults
    ends: list[Any] = [*cluster["pods"], "192.0.2.7", "fd00::f"]
    for source in ends:
        for target in ends:
            if source is not target:
                decided = is_let_through(found.rules, source, target, NUMBERS[name], number)
                assert decided == is_allowed(cluster, source, target, name, number)


APP = {"matchLabels": {"app": "x"}}
NOT_TIER = {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["y"]}]}
BOTH_LABELS = {"matchLabels": {"app": "x", "tier": "y"}}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [({}, "1234"), (APP, "12"), (NOT_TIER, "13"), (APP | NOT_TIER, "1"), (BOTH_LABELS, "2")],
    ids=str,
)
def test_each_requirement_of_a_peers_selector_counts(
    selector: dict[str, Any], expected: str
) -> None:
    everywhere = {"from": [{"namespaceSelector": {}, "podSelector": selector}]}
    spec = {"podSelector": {}, "ingress": [everywhere]}
    labels_of_pods: list[dict[str, str]] = [
        {"app": "x"},
        {"app": "x", "tier": "y"},
        {},
        {"app": "y", "tier": "y"},
    ]
    pods = [
        {
            "metadata": {"namespace": "a", "name": f"p{n}", "labels": each},
            "status": {"podIPs": [{"ip": f"10.0.0.{n}"}]},
        }
        for n, each in enumerate(labels_of_pods, 1)
    ]
    policy = {"metadata": {"namespace": "a", "name": "n"}, "spec": spec}
    facts = facts_of({"pods": pods, "namespaces": {}, "policies": [policy]})
    (found,) = compile_rules(facts, local_of(facts)).rules.filters.values()
    assert found.hosts == {ip_address(f"10.0.0.{n}") for n in expected}


def test_a_pod_that_is_not_known_is_closed_where_its_namespace_has_policies() -> None:
    cluster = {
        "pods": [],
        "namespaces": {},
        "policies": [{"metadata": {"namespace": "a", "name": "n"}, "spec": {"podSelector": {}}}],
    }
    facts = facts_of(cluster)
    local = [LocalPod("pw1", ("a", "new")), LocalPod("pw2", ("b", "new")), LocalPod("pw3", None)]
    found = compile_rules(facts, local)
    assert found.rules.known == {"pw2", "pw3"}
    assert found.closed == (("a", "new"),)
    assert compile_rules(facts, local, unknown=True).rules.known == {"pw1", "pw2", "pw3"}


MONITOR = {"podwire.dev/policy-mode": "monitor"}


@pytest.mark.parametrize("of_namespace", [False, True])
def test_a_policy_that_monitors_closes_no_pod(of_namespace: bool) -> None:
    watched = {"namespace": "a", "name": "n", "annotations": {} if of_namespace else MONITOR}
    namespace = {"metadata": {"name": "a", "annotations": MONITOR if of_namespace else {}}}
    policies = [parse_policy({"metadata": watched})]
    local = [LocalPod("pw1", ("a", "new")), LocalPod("pw2", ("b", "new"))]

    def compiled() -> Compiled:
        namespaces = {"a": parse_namespace_facts(namespace)}
        return compile_rules(Facts({p.key: p for p in policies}, namespaces), local)

    found = compiled()
    assert (found.closed, found.rules.closes) == ((), False)
    assert found.rules.known == {"pw1", "pw2"}
    assert allows(found.rules, "ingress", "pw3", ip_address("10.0.0.1"), 6, 80)
    policies.append(parse_policy({"metadata": {"namespace": "b", "name": "n"}}))
    found = compiled()
    assert (found.closed, found.rules.closes) == ((("b", "new"),), True)
    assert found.rules.known == {"pw1"}
    assert not allows(found.rules, "ingress", "pw3", ip_address("10.0.0.1"), 6, 80)


PODS = [
    {
        "metadata": {"namespace": "a", "name": f"p{n}"},
        "status": {"podIPs": [{"ip": f"10.0.{n // 250}.{n % 250}"}]},
    }
    for n in range(1000)
]
ODD = [{"port": port} for port in range(1, 20_001, 2)]
BLOCK = {"cidr": "10.0.0.0/8", "except": [f"10.{n // 250}.{n % 250}.9/32" for n in range(50_000)]}


@pytest.mark.parametrize(
    "rule",
    [
        {"from": [{"podSelector": {}}], "ports": ODD},
        {"from": [{"ipBlock": BLOCK}], "ports": ODD},
        {"from": [{"ipBlock": BLOCK}]},
    ],
    ids=["pods", "blocks", "ranges"],
)
def test_what_multiplies_closes_its_pods_before_it_takes_memory(rule: dict[str, Any]) -> None:
    policy: dict[str, Any] = {"metadata": {"namespace": "a", "name": "n"}, "spec": {}}
    policy["spec"]["ingress"] = [rule]
    facts = facts_of({"pods": PODS, "namespaces": {}, "policies": [policy]})
    tracemalloc.start()
    try:
        found = compile_rules(facts, [LocalPod("pw1", ("a", "p1"))])
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "too many" in found.faults["a/n"]
    assert found.rules.filter_of("ingress", "pw1") == Filter("ingress")
    assert peak < 64 << 20


def test_ports_that_touch_are_one_whatever_the_number_of_peers() -> None:
    ports = [{"port": port} for port in range(1, 10_001)]
    policy: dict[str, Any] = {"metadata": {"namespace": "a", "name": "n"}, "spec": {}}
    policy["spec"]["ingress"] = [{"from": [{"podSelector": {}}], "ports": ports}]
    facts = facts_of({"pods": PODS, "namespaces": {}, "policies": [policy]})
    found = compile_rules(facts, [LocalPod("pw1", ("a", "p1"))])
    assert not found.faults
    [made] = found.rules.filters.values()
    assert len(made.boxes) == len(PODS)


def test_an_address_with_a_zone_is_none() -> None:
    pod = {"metadata": {"namespace": "a", "name": "p"}, "status": {"podIPs": [{"ip": "fe80::1%x"}]}}
    with pytest.raises(UnusableField, match="without zone"):
        parse_pod_facts(pod)
