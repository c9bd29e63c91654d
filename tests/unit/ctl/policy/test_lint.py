"""Likely mistakes in policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctl.policy.lint import OF_FILE, Scope, lint
from daemon.policy.objects import facts_of
from daemon.policy.saved_facts import saved_path
from tests.unit.ctl.conftest import Run

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


def mistakes(*things: dict[str, Any], scope: Scope = OF_FILE) -> list[str]:
    return [mistake.what for mistake in lint(facts_of(things), scope)]


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


WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
FRONT = {"podSelector": {"matchLabels": {"tier": "front"}}}
NARROW = {"egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 80}]}]}
NO_DNS = "its pods may send, but not look names up: nothing allows DNS"
OF_NODE = Scope(pods=False, namespaces=True)


def test_a_default_deny_beside_policies_that_allow_is_no_mistake() -> None:
    deny = policy("default-deny", policyTypes=["Ingress", "Egress"])
    assert mistakes(deny, policy("web", **WEB, egress=[DNS])) == []
    assert mistakes(deny) == []
    assert mistakes(deny, policy("web", **WEB, **NARROW)) == [NO_DNS]


def test_dns_is_what_all_policies_of_a_pod_allow_together() -> None:
    two = policy("out", **WEB, **NARROW), policy("dns", **FRONT, egress=[DNS])
    assert mistakes(*two) == [NO_DNS]
    assert mistakes(*two, pod("a", app="web", tier="front")) == []
    assert mistakes(*two, pod("a", app="web", tier="front"), pod("b", app="web")) == [NO_DNS]
    # Of more labels, another policy selects all of these pods.
    both = {"podSelector": {"matchLabels": {"app": "web", "tier": "front"}}}
    assert mistakes(policy("out", **both, **NARROW), two[1]) == []
    assert mistakes(policy("out", **WEB, **NARROW), policy("dns", **both, egress=[DNS])) == [NO_DNS]


def test_what_a_node_does_not_know_is_no_mistake() -> None:
    """It knows its own pods and the peers of their policies."""
    there = {"podSelector": {"matchLabels": {"app": "elsewhere"}}}
    things = (
        pod("web", {"http": 80}, app="web"),
        namespace("app"),
        policy("there", **there, ingress=[{"ports": [{"port": 5432}]}]),
        policy("all", ingress=[{"ports": [{"port": 5432}]}]),
        policy("out", **there, **NARROW),
        policy("dns", **FRONT, egress=[DNS]),
    )
    assert mistakes(*things, scope=OF_NODE) == []
    assert len(mistakes(*things)) == 5
    # What it does know is judged.
    assert mistakes(*things[:2], policy("out", **WEB, **NARROW), things[-1], scope=OF_NODE) == [
        NO_DNS
    ]


def test_a_namespace_that_a_file_does_not_describe_is_known_by_its_name() -> None:
    """A file of an application has its own namespace, and the cluster more of them."""
    system = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    dns = policy("dns", egress=[{**DNS, "to": [{"namespaceSelector": system}]}])
    assert mistakes(namespace("app"), dns) == []
    [found] = mistakes(namespace("app"), dns, scope=OF_NODE)
    assert "no namespace has the labels kubernetes.io/metadata.name=kube-system" in found


@pytest.mark.parametrize(("source", "count"), [("{}", 0), ("{dir: /policies}", 0), ("FILE", 1)])
def test_a_policy_of_pods_elsewhere(run: Run, tmp_path: Path, source: str, count: int) -> None:
    elsewhere = policy("there", podSelector={"matchLabels": {"app": "elsewhere"}}, ingress=[{}])
    things = {"kind": "List", "items": [pod("web", app="web"), namespace("app"), elsewhere]}
    saved_path(tmp_path).write_text(json.dumps(things))
    config = tmp_path / "podwired.yaml"
    kubernetes = "{kubernetes: {clusterCIDRs: [10.244.0.0/16]}}"
    policies = "" if source == "FILE" else f"policy: {source}\n"
    config.write_text(f"node: n1\nsource: {kubernetes}\ndataDir: {tmp_path}\n{policies}")
    file = [saved_path(tmp_path)] if source == "FILE" else []
    status, out, err = run("policy", "lint", *file, "--config", config)
    assert (status, out.count("no pod")) == (count, count), (out, err)
