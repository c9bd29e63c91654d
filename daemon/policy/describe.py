"""Policies in words, for journal, log and `podwirectl`."""

from __future__ import annotations

import time
from collections.abc import Iterable

from daemon.journal import Action, Record
from daemon.policy.model import Facts, Policy, Rule
from kernel.nftables.policy_rules import DIRECTIONS, Direction

_NAMED = 4
"""Peers or ports of a rule that are named; of more, the number is."""


def describe_changes(old: Facts, new: Facts) -> list[Record]:
    """Policies that changed: before and after."""
    records, now = [], time.time()
    for key in old.policies.keys() | new.policies.keys():
        before, after = old.policies.get(key), new.policies.get(key)
        if before != after:
            action: Action = "changed" if before and after else "added" if after else "removed"
            words = (describe_policy(policy) if policy else "" for policy in (before, after))
            records.append(
                Record(now, action, f"NetworkPolicy {'/'.join(key)}", "its object", *words)
            )
    return records


def describe_policy(policy: Policy) -> str:
    """What a policy lets through to, or from, the pods that it selects."""
    if policy.fault:
        return f"lets nothing through to pods {policy.pods}: {policy.fault}"
    parts = []
    for direction in (each for each in DIRECTIONS if each in policy.rules):
        rules = [describe_rule(rule, direction) for rule in policy.rules[direction]]
        parts.append(f"{direction}: {' or '.join(rules) or 'nothing'}")
    mode = " (reports only)" if policy.monitors else ""
    return f"pods {policy.pods}{mode}: {'; '.join(parts)}"


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
