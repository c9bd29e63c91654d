"""What the table of policies has otherwise than the policies that the daemon knows ask for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from ctl.policy.ends import Known
from daemon.policy.local_pods import summary
from kernel.nftables.policy import (
    TABLE,
    chain_name,
    chains_of,
    policy_is_present,
    read_chains,
)
from kernel.nftables.policy_listing import members_of, read_members
from kernel.nftables.policy_rules import DIRECTIONS, PolicyRules

_NAME = f"nft table inet {TABLE}"
_NAMED = 5
"""Members of a set with a line each; of more of them, the number is given."""


class PolicyDifference(NamedTuple):
    """desired, observed: empty where it should not be, or is not there. of: the pods concerned."""

    of: str
    name: str
    desired: str
    observed: str
    text: str


def compare_policy(known: Known | None) -> Iterator[PolicyDifference]:
    """Compare table and policies. known: None where no policy is enforced. Raises KernelError."""
    if known is None or not known.facts.policies:
        if policy_is_present():
            text = f"{_NAME} is there, though no policy is enforced"
            yield PolicyDifference("", _NAME, "", "present", text)
        return
    rules = known.compile()
    members = read_members()
    if members is None:
        text = f"{_NAME} is missing: what policies forbid passes"
        yield PolicyDifference("", _NAME, "as policies ask for", "", text)
        return
    pods = _pods_by_filter(known, rules)
    yield from _compare_chains(rules, pods)
    yield from _compare_members(rules, members, pods)


def _pods_by_filter(known: Known, rules: PolicyRules) -> Mapping[str, str]:
    """The pods that a chain limits, by its name: "shop/cart"."""
    pods = {place: pod.key for pod in known.local if pod.key for place in pod.places}
    found = defaultdict(set)
    for direction in DIRECTIONS:
        for place, name in rules.names(direction).items():
            if place in pods:
                found[chain_name(direction, name)].add(pods[place])
    return {chain: summary(sorted(keys)) for chain, keys in found.items()}


def _compare_chains(rules: PolicyRules, pods: Mapping[str, str]) -> Iterator[PolicyDifference]:
    desired, observed = chains_of(rules), read_chains()
    for name in sorted(desired.keys() | observed.keys()):
        if desired.get(name) == observed.get(name):
            continue
        if name not in desired:
            yield _difference(pods, name, "", "present", "should not have rules")
        elif name not in observed:
            yield _difference(pods, name, "as policies ask for", "", "has no rules")
        else:
            yield _difference(pods, name, "as policies ask for", "others", "has other rules")


def _difference(
    pods: Mapping[str, str], chain: str, desired: str, observed: str, text: str
) -> PolicyDifference:
    name = f"nft chain {chain} of table inet {TABLE}"
    return PolicyDifference(pods.get(chain, ""), name, desired, observed, f"{name} {text}")


def _compare_members(
    rules: PolicyRules, observed: Mapping[str, frozenset[str]], pods: Mapping[str, str]
) -> Iterator[PolicyDifference]:
    desired = members_of(rules)
    for name in sorted(desired.keys() | observed.keys()):
        want, have = desired.get(name, frozenset()), observed.get(name, frozenset())
        of = next((pods[chain] for chain in pods if name.startswith(f"{chain}-")), "")
        what = f"set {name} of {_NAME}"
        for found, state, text in (
            (want - have, ("present", ""), "is missing in"),
            (have - want, ("", "present"), "should not be in"),
        ):
            for member in islice(sorted(found), _NAMED):
                yield PolicyDifference(of, what, *state, f"{member} {text} {what}")
            if len(found) > _NAMED:
                more = f"{len(found) - _NAMED} more members {text.replace('is', 'are')} {what}"
                yield PolicyDifference(of, what, *state, more)
