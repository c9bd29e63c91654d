"""By which rule a connection is let through, or why it is not, as the daemon's compiler decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ctl.policy.ends import End, Known
from daemon.policy.compile import LocalPod, Selected, allows, compile_rules, select
from daemon.policy.describe import describe_rule
from daemon.policy.model import Facts, NamespaceFacts, PodFacts, Policy, Rule
from kernel.nftables.policy import count_packets
from kernel.nftables.policy_rules import DIRECTIONS, Direction

_LINK = "pod"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policies of one end say. policies: those that select it. rule: the words of the one that
    lets the connection through, with its policy; empty where none does. by_node: whether it is one
    of a pod and its own node."""

    direction: Direction
    end: End
    allowed: bool
    policies: tuple[Policy, ...] = ()
    rule: str = ""
    monitors: bool = False
    by_node: bool = False

    def __str__(self) -> str:
        if self.by_node:
            return "not limited: a node and its own pods reach each other"
        if not self.policies:
            return "not limited: no policy selects it" if self.end.pod else "no pod that is known"
        names = ", ".join(map(str, self.policies))
        if self.rule:
            return f"let through by {self.rule}"
        if self.monitors:
            return f"let through, and reported: no rule of {names} allows it (monitor mode)"
        return f"dropped: no rule of {names} allows it"


def explain(
    facts: Facts,
    source: End,
    target: End,
    protocol: int,
    port: int,
    by_node: Callable[[End, End], bool] = lambda _own, _peer: False,
) -> list[Verdict]:
    """The verdicts on a connection: of the source's policies, and of the target's.

    by_node: whether one end is a pod of this node, and the other the node itself.
    """
    ends: tuple[tuple[Direction, End, End], ...] = (
        ("egress", source, target),
        ("ingress", target, source),
    )
    is_self = source.pod is not None and source.pod == target.pod
    return [
        Verdict(direction, own, allowed=True)
        if is_self or own.pod is None
        else Verdict(direction, own, allowed=True, by_node=True)
        if by_node(own, peer)
        else _judge(facts, direction, own, own.pod, peer, (protocol, port))
        for direction, own, peer in ends
    ]


def _judge(
    facts: Facts,
    direction: Direction,
    own: End,
    pod: PodFacts,
    peer: End,
    service: tuple[int, int],
) -> Verdict:
    selected = select(facts, pod, direction)
    if selected is None:
        return Verdict(direction, own, allowed=True)
    for policy, rule, words in rules_of(selected, direction):
        alone = {policy.key: replace(policy, rules={direction: (rule,)}, monitors=False)}
        only = replace(facts, policies=alone, namespaces=_enforcing(facts))
        if _allows(only, direction, pod, peer, service):
            return Verdict(direction, own, True, selected.policies, words, selected.monitors)
    return Verdict(direction, own, selected.monitors, selected.policies, "", selected.monitors)


def _enforcing(facts: Facts) -> dict[str, NamespaceFacts]:
    return {name: replace(n, monitors=False) for name, n in facts.namespaces.items()}


def _allows(
    facts: Facts, direction: Direction, pod: PodFacts, peer: End, service: tuple[int, int]
) -> bool:
    rules = compile_rules(facts, [LocalPod(_LINK, pod.key)]).rules
    return allows(rules, direction, _LINK, peer.address, *service)


def rules_of(selected: Selected, direction: Direction) -> Iterator[tuple[Policy, Rule, str]]:
    """The rules of policies in a direction, each with its words."""
    for policy in selected.policies:
        for number, rule in enumerate(policy.rules[direction], 1):
            yield policy, rule, f"rule {number} of {policy}: {describe_rule(rule, direction)}"


def describe_limits(known: Known, pod: PodFacts, local: LocalPod | None) -> list[dict[str, object]]:
    """What limits a pod in each direction, as `podwirectl policy show -o json` has it.

    local: the pod where it is one of this node, whose counters are read. Raises KernelError.
    """
    rules = known.compile()
    found: list[dict[str, object]] = []
    for direction in DIRECTIONS:
        selected = select(known.facts, pod, direction) or Selected((), monitors=False)
        names = rules.ingress if direction == "ingress" else rules.egress
        places = local.places if local else ()
        name = next((names[place] for place in places if place in names), None)
        allowed, denied = count_packets(name, rules.filters[name]) if name else (None, None)
        found.append(
            {
                "direction": direction,
                "limited": bool(selected.policies),
                "monitors": selected.monitors,
                "policies": [str(policy) for policy in selected.policies],
                "rules": [words for *_rest, words in rules_of(selected, direction)],
                "allowed": allowed,
                "denied": denied,
            }
        )
    return found
