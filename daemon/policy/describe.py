"""Policies in words, for journal, log and `podwirectl`."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.policy.model import Policy, Rule
from kernel.nftables.policy_rules import DIRECTIONS, Direction

_NAMED = 4
"""Peers or ports of a rule that are named; of more, the number is."""


def describe_policy(policy: Policy) -> str:
    """What a policy lets through to, or from, the pods that it selects."""
    if policy.fault:
        return f"lets nothing through to pods {policy.pods}: {policy.fault}"
    parts = [
        f"{direction}: {describe_rules(policy, direction)}"
        for direction in DIRECTIONS
        if direction in policy.rules
    ]
    mode = " (reports only)" if policy.monitors else ""
    return f"pods {policy.pods}{mode}: {'; '.join(parts)}"


def describe_rules(policy: Policy, direction: Direction) -> str:
    """The rules of a direction."""
    return " or ".join(describe_rule(r, direction) for r in policy.rules[direction]) or "nothing"


def describe_rule(rule: Rule, direction: Direction) -> str:
    """What one rule lets through."""
    word = "from" if direction == "ingress" else "to"
    peers = _some(map(str, rule.peers)) or "anywhere"
    ports = _some(map(str, rule.ports))
    return f"{word} {peers}" + f" at {ports}" * bool(ports)


def _some(texts: Iterable[str]) -> str:
    known = list(texts)
    more = [f"{len(known) - _NAMED} more"] if len(known) > _NAMED else []
    return ", ".join([*known[:_NAMED], *more])
