"""Other nodes: whether their prefixes are planned, and whether they answer."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity, split_remedy
from ctl.doctor.observed import Observed
from daemon.model import Refusal
from daemon.probes.report import Reason, Trouble

_NAMED = 20
"""Prefixes or peers with a finding each."""


def check_refused(seen: Observed) -> Iterator[Finding]:
    """Prefixes that the plan refuses, and those that overlap a network of the node."""
    desired = seen.desired
    if desired is None:
        return
    for refusal in desired.refused[:_NAMED]:
        own = refusal.node == desired.me.name
        lost = "new pods get no address of it" if own else "its pods are not reached from here"
        what = f"is refused: {refusal.why}: {lost}"
        yield _of_prefix(refusal, what, "give the nodes prefixes that overlap nothing")
    for refusal in desired.tolerated[:_NAMED]:
        what = f"{refusal.why}: packets go there, not to pods"
        yield _of_prefix(refusal, what, "remove that network or route from this node")


def _of_prefix(refusal: Refusal, what: str, remedy: str) -> Finding:
    name = f"{refusal.prefix} of {refusal.node}"
    return Finding(
        "prefixes", Severity.BROKEN, f"{name} {what}", remedy, where=refusal.node,
        names=(f"node {refusal.node} {refusal.prefix}",),
        nodes=(refusal.other,) if refusal.other else (),
    )  # fmt: skip


def check_peers(seen: Observed) -> Iterator[Finding]:
    """The verdicts of the daemon's probes."""
    status = seen.daemon.status
    if status is None or status.health is None:
        return
    for name, under in seen.underlay.items():
        if under.fault:
            yield Finding(
                "peers", Severity.BROKEN, f"{name} is not reached, for on this node {under.fault}",
                "remove that entry, route or rule", where=name, names=(f"peer {name}",),
            )  # fmt: skip
    for trouble in status.health.troubles[:_NAMED]:
        if trouble.detail not in seen.drops:  # else that is a finding of its own
            found = seen.underlay.get(trouble.node)
            yield _of_peer(trouble, found.hint if found else "")


def _of_peer(trouble: Trouble, hint: str) -> Finding:
    what, remedy = split_remedy(trouble.detail)
    alive = trouble.reason == Reason.DAEMON_GONE
    here = f"; on this node {hint}" if hint and not alive else ""
    return Finding(
        "peers", Severity.DEGRADED if alive else Severity.BROKEN,
        f"{trouble.node} is not reached ({trouble.reason}): {what}{here}",
        "; ".join(filter(None, (remedy, f"run `podwirectl doctor` on {trouble.node}"))),
        where=trouble.node,
        names=(f"peer {trouble.node}",), since=trouble.since,
    )  # fmt: skip
