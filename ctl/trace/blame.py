"""Whose a rule is, and how messages name it; pure but for the rule's text."""

from __future__ import annotations

from collections.abc import Iterable

from ctl.trace.probe import Step
from kernel.nftables.policy import TABLE as POLICY_TABLE
from kernel.nftables.table import TABLE
from kernel.nftables.tracer import read_rule_text

_CHAINS = {
    "KUBE-": "kube-proxy", "DOCKER": "Docker", "CNI-": "a CNI plugin", "cali-": "Calico",
    "ts-": "Tailscale", "ufw": "ufw", "FLANNEL": "flannel", "NETAVARK": "podman",
}  # fmt: skip
_TABLES = {
    TABLE: "podwire", POLICY_TABLE: "podwire", "firewalld": "firewalld",
    "kube-proxy": "kube-proxy", "netavark": "podman",
    "cni_hostport": "the CNI plugin portmap", "cni_plugins_masquerade": "a CNI plugin",
}  # fmt: skip
# iptables-nft's targets translate with the verdict of the packet, or go on.
_ENDING = frozenset({("rule", "accept"), ("rule", "continue")})
_IPTABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})


def is_podwires(step: Step) -> bool:
    """Whether the rule is podwire's own."""
    return step.event.table in (TABLE, POLICY_TABLE)


def owner_of(table: str, chain: str, family: str) -> str:
    """Who makes such rules, as far as names say."""
    for prefix, name in _CHAINS.items():
        if chain.startswith(prefix):
            return name
    if table in _TABLES:
        return _TABLES[table]
    return "iptables-nft" if table in _IPTABLES and family in ("ip", "ip6") else "another program"


def describe_step(step: Step, *, in_pod: bool = False) -> str:
    """The rule or policy, and whose it is; the text of those of the node, not of those in a pod."""
    event = step.event
    place = f"chain {event.chain} of table {event.family} {event.table}"
    whose = owner_of(event.table, event.chain, event.family)
    if event.kind == "policy":
        return f"the policy of {place} ({whose})"
    listed = "" if in_pod else read_rule_text(event)
    listed = listed.split(f' comment "{TABLE} ')[0]
    said = f" `{listed}`" if listed else ""
    return f"rule {event.handle}{said} of {place} ({whose})"


def find_translation(
    steps: Iterable[Step], first: str, last: str
) -> tuple[Step, Step, Step | None] | None:
    """The step before and that after an address or port was translated between two hooks, and the
    rule that did it, if one did; None where nothing was translated.

    The rule is the last one that accepted: a translation ends the chain.
    """
    begun, rule = None, None
    for step in steps:
        if step.event.chain == first and step.event.is_own:
            begun, rule = step, None
        elif step.event.chain == last and step.event.is_own and begun:
            if (begun.source, begun.to, begun.port) != (step.source, step.to, step.port):
                return begun, step, rule
            begun = None
        elif not step.event.is_own and (step.event.kind, step.event.verdict) in _ENDING:
            rule = step
    return None
