"""What is likely a mistake in policies; pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from daemon.policy.compile import ends_of_block
from daemon.policy.model import NAME_LABEL, Facts, IpBlock, PodFacts, Policy, Ports, Rule
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


@dataclass(frozen=True, slots=True)
class Scope:
    """What the facts have all of; of the rest nothing is called missing.

    pods: false of what a node knows, which is its own pods and the peers of their policies.
    namespaces: false of files, which need not describe those of others.
    """

    pods: bool = True
    namespaces: bool = False


OF_FILE = Scope()


def lint(facts: Facts, scope: Scope = OF_FILE) -> list[Mistake]:
    """The mistakes in all policies.

    Pods and namespaces are compared only where any are known.
    """
    return [
        Mistake(str(policy), what, do)
        for policy in sorted(facts.policies.values(), key=lambda p: p.key)
        for what, do in _mistakes(facts, scope, policy)
    ]


_Found = Iterator[tuple[str, str]]


def _mistakes(facts: Facts, scope: Scope, policy: Policy) -> _Found:
    if policy.fault:
        yield f"it lets nothing through: {policy.fault}", "correct that field"
        return
    own = [pod for pod in facts.pods.values() if pod.namespace == policy.namespace]
    selected = [pod for pod in own if policy.pods.matches(pod.labels)]
    if scope.pods and own and not selected:
        do = "compare spec.podSelector with the labels of the pods"
        yield f"no pod that is known in {policy.namespace} has the labels {policy.pods}", do
    if not _can_look_up(facts, scope, policy, selected):
        yield "its pods may send, but not look names up: nothing allows DNS", f"add\n{_DNS_RULE}"
    for direction, rules in policy.rules.items():
        yield from _closed(policy, direction, rules)
        for number, rule in enumerate(rules):
            where = f"{direction} rule {number + 1}"
            yield from _peers(facts, scope, rule, where)
            yield from _unreachable(rules, number, where)
            if direction == "ingress" and scope.pods:
                yield from _ports(selected, rule, where)


def _can_look_up(
    facts: Facts, scope: Scope, policy: Policy, selected: Collection[PodFacts]
) -> bool:
    """Whether pods that a policy lets send something may be able to look names up, too.

    What a pod may send is what any of its policies allows.
    """
    if not policy.rules.get("egress"):
        return True
    allowing = [
        other.pods
        for other in facts.policies.values()
        if other.namespace == policy.namespace
        and any(_allows_dns(other.namespace, rule) for rule in other.rules.get("egress", ()))
    ]
    if any({*pods.requirements} <= {*policy.pods.requirements} for pods in allowing):
        return True
    if not selected:  # its pods may be other nodes', and selected by any of these policies
        return bool(allowing) and not scope.pods
    return all(any(pods.matches(pod.labels) for pods in allowing) for pod in selected)


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


def _peers(facts: Facts, scope: Scope, rule: Rule, where: str) -> _Found:
    for peer in rule.peers:
        if isinstance(peer, IpBlock):
            if not any(ends_of_block(peer)):
                yield f"{where}: nothing is left of {peer}", "remove what `except` takes away"
        elif peer.namespaces is not None and facts.namespaces:
            yield from _namespaces(facts, scope, peer.namespaces, where)


def _namespaces(facts: Facts, scope: Scope, selector: Selector, where: str) -> _Found:
    names = {*facts.namespaces}
    if not scope.namespaces:
        names |= {name for name, _ in (*facts.pods, *facts.policies)}
        names |= {v for r in selector.requirements if r.key == NAME_LABEL for v in r.values}
    if not any(selector.matches(facts.labels_of(name)) for name in names):
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
