"""What is likely a mistake in policies; pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from daemon.policy.compile import ends_of_block
from daemon.policy.model import Facts, IpBlock, PodFacts, Policy, Ports, Rule
from daemon.policy.selectors import Selector
from kernel.nftables.policy_rules import Direction

_UDP, _DNS = 17, 53
_DNS_NAMESPACE = "kube-system"
_DNS_RULE = """\
  egress:
  - to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
    ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}"""


@dataclass(frozen=True, slots=True)
class Mistake:
    """policy: its namespace and name. what: the mistake. do: what to do, YAML to add perhaps."""

    policy: str
    what: str
    do: str


def lint(facts: Facts) -> list[Mistake]:
    """The mistakes in all policies.

    Pods and namespaces are compared only where any are known.
    """
    return [
        Mistake(str(policy), what, do)
        for policy in sorted(facts.policies.values(), key=lambda p: p.key)
        for what, do in _mistakes(facts, policy)
    ]


_Found = Iterator[tuple[str, str]]


def _mistakes(facts: Facts, policy: Policy) -> _Found:
    if policy.fault:
        yield f"it lets nothing through: {policy.fault}", "correct that field"
        return
    own = [pod for pod in facts.pods.values() if pod.namespace == policy.namespace]
    selected = [pod for pod in own if policy.pods.matches(pod.labels)]
    if own and not selected:
        do = "compare spec.podSelector with the labels of the pods"
        yield f"no pod that is known in {policy.namespace} has the labels {policy.pods}", do
    yield from _dns(facts, policy)
    for direction, rules in policy.rules.items():
        yield from _closed(policy, direction, rules)
        for number, rule in enumerate(rules):
            where = f"{direction} rule {number + 1}"
            yield from _peers(facts, rule, where)
            yield from _unreachable(rules, number, where)
            if direction == "ingress":
                yield from _ports(selected, rule, where)


def _dns(facts: Facts, policy: Policy) -> _Found:
    if "egress" not in policy.rules:
        return
    beside = [
        other
        for other in facts.policies.values()
        if other.namespace == policy.namespace
        and "egress" in other.rules
        and (other.pods == policy.pods or not other.pods.requirements)
    ]
    rules = [rule for each in beside for rule in each.rules["egress"]]
    if not any(_allows_dns(policy.namespace, rule) for rule in rules):
        yield "its pods may send, but not look names up: nothing allows DNS", f"add\n{_DNS_RULE}"


def _allows_dns(namespace: str, rule: Rule) -> bool:
    """Whether a rule may be for DNS, too. One for all ports of pods beside is for those alone."""
    if rule.ports:
        ports = [p for p in rule.ports if p.protocol == _UDP]
        return any(p.name or p.first <= _DNS <= p.last for p in ports)
    elsewhere = (isinstance(p, IpBlock) or p.namespaces is not None for p in rule.peers)
    return not rule.peers or any(elsewhere) or namespace == _DNS_NAMESPACE


def _closed(policy: Policy, direction: Direction, rules: tuple[Rule, ...]) -> _Found:
    if not rules and json.loads(policy.spec).get(direction) == [] and "allow" in policy.name:
        what = f"`{direction}: []` lets nothing through"
        yield what, f"`{direction}: [{{}}]` lets everything through"


def _peers(facts: Facts, rule: Rule, where: str) -> _Found:
    for peer in rule.peers:
        if isinstance(peer, IpBlock):
            if not any(ends_of_block(peer)):
                yield f"{where}: nothing is left of {peer}", "remove what `except` takes away"
        elif peer.namespaces is not None and facts.namespaces:
            yield from _namespaces(facts, peer.namespaces, where)


def _namespaces(facts: Facts, selector: Selector, where: str) -> _Found:
    if not any(selector.matches(facts.labels_of(name)) for name in facts.namespaces):
        what = f"{where}: no namespace has the labels {selector}"
        yield what, "every namespace has the label kubernetes.io/metadata.name, with its name"


def _unreachable(rules: tuple[Rule, ...], number: int, where: str) -> _Found:
    for other, rule in enumerate(rules):
        is_other = other != number and (rule != rules[number] or other < number)
        if is_other and _covers(rule, rules[number]):
            yield f"{where} adds nothing to rule {other + 1}", "remove it"
            return


def _covers(wide: Rule, narrow: Rule) -> bool:
    """Whether one rule surely lets all through that the other one does."""
    peers = not wide.peers or (bool(narrow.peers) and {*narrow.peers} <= {*wide.peers})
    ports = not wide.ports or (
        bool(narrow.ports) and all(any(_has(w, n) for w in wide.ports) for n in narrow.ports)
    )
    return peers and ports


def _has(wide: Ports, narrow: Ports) -> bool:
    if wide.name or narrow.name:
        return wide == narrow
    return (
        wide.protocol == narrow.protocol and wide.first <= narrow.first and narrow.last <= wide.last
    )


def _ports(selected: Iterable[PodFacts], rule: Rule, where: str) -> _Found:
    """Ports that no container of the pods declares, where any declares some."""
    declared = [pod.ports for pod in selected if pod.ports]
    if not declared:
        return
    for port in rule.ports:
        has = (
            (port.protocol, port.name) in ports
            if port.name
            else any(
                protocol == port.protocol and port.first <= number <= port.last
                for (protocol, _name), number in ports.items()
            )
            for ports in declared
        )
        if not any(has):
            yield f"{where}: no container of its pods has the port {port}", "compare containerPort"
