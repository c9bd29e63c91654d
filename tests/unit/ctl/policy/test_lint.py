"""Likely mistakes in policies."""

from __future__ import annotations

from typing import Any

import pytest

from ctl.policy.lint import lint
from daemon.policy.objects import facts_of

NOTHING = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}
DNS = {"ports": [{"protocol": "UDP", "port": 53}]}


def policy(name: str = "p", **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "app", "name": name}
    return {"kind": "NetworkPolicy", "metadata": metadata, "spec": {"podSelector": {}, **spec}}


def pod(name: str, ports: dict[str, int] | None = None, **labels: str) -> dict[str, Any]:
    found = [{"name": n, "containerPort": p} for n, p in (ports or {}).items()]
    return {
        "kind": "Pod",
        "metadata": {"namespace": "app", "name": name, "labels": labels},
        "spec": {"containers": [{"ports": found}]},
        "status": {},
    }


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def mistakes(*things: dict[str, Any]) -> list[str]:
    return [mistake.what for mistake in lint(facts_of(things))]


def test_story_03_egress_without_dns_is_named_with_the_yaml_to_add() -> None:
    backend = {"to": [{"podSelector": {"matchLabels": {"app": "backend"}}}]}
    narrow = policy("backend", egress=[{**backend, "ports": [{"port": 80}]}])
    [mistake] = lint(facts_of([narrow]))
    assert mistake.policy == "app/backend"
    assert "DNS" in mistake.what
    assert "port: 53" in mistake.do
    # Policies add up: another one of the same pods may allow it.
    assert mistakes(narrow, policy("dns", egress=[DNS])) == []
    # Pods of the same namespace are not those that answer, whatever their ports.
    assert mistakes(policy("all", egress=[backend])) == [mistake.what]
    everywhere = {"to": [*backend["to"], {"namespaceSelector": {}}]}
    assert mistakes(policy("all", egress=[everywhere])) == []
    assert mistakes(policy("all", egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"podSelector": {"matchLabels": {"app": "nobody"}}}, "no pod that is known"),
        ({"ingress": [{"ports": [{"port": "ftp"}]}]}, "no container"),
        ({"ingress": [{"ports": [{"port": 81}]}]}, "no container"),
        ({"ingress": [{"ports": [{"port": 80}]}, {}]}, "rule 1 adds nothing to rule 2"),
        ({"ingress": [{}, {}]}, "rule 2 adds nothing to rule 1"),
        (
            {"ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "z"}}}]}]},
            "no namespace has the labels team=z",
        ),
        (
            {
                "ingress": [
                    {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}
                ]
            },
            "nothing is left",
        ),
        ({"ingress": [{"from": [{}]}]}, "lets nothing through"),
    ],
)
def test_mistakes(spec: dict[str, Any], words: str) -> None:
    [found] = mistakes(pod("web", {"http": 80}, app="web"), namespace("app"), policy(**spec))
    assert words in found


def test_an_empty_list_in_a_policy_that_allows_by_its_name() -> None:
    [found] = mistakes(policy("allow-all", ingress=[]))
    assert "`ingress: []` lets nothing through" in found
    assert mistakes(policy("deny-all", ingress=[])) == []


def test_a_port_without_a_name_is_one_of_its_container() -> None:
    web = pod("web", {"http": 80}, app="web")
    web["spec"]["containers"][0]["ports"].append({"containerPort": 8080})
    assert mistakes(web, policy(ingress=[{"ports": [{"port": 8080}]}])) == []


def test_a_number_in_quotes_is_no_name() -> None:
    [found] = mistakes(pod("web"), policy(ingress=[{"ports": [{"port": "80"}]}]))
    assert "lets nothing through" in found


def test_good_policies_have_no_mistakes() -> None:
    team = {"namespaceSelector": {"matchLabels": {"team": "a"}}}
    things = (
        pod("web", {"http": 80}, app="web"),
        namespace("app", team="a"),
        policy("one", ingress=[{"from": [team], "ports": [{"port": "http"}]}], egress=[DNS]),
        policy("two", podSelector={"matchLabels": {"app": "web"}}, ingress=[{}]),
    )
    assert mistakes(*things) == []
