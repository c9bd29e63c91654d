"""What leads to other nodes, and whether these answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed
from daemon.probes.report import Reason, Trouble
from daemon.routing.diversions import describe_diverted

_NAMED = 20
"""Prefixes or peers with a finding each."""


def check_paths(seen: Observed) -> Iterator[Finding]:
    """Where the kernel sends packets of pods."""
    if seen.diverted and not seen.differences:
        yield Finding(
            "paths", Severity.BROKEN, describe_diverted(list(seen.diverted)),
            seen.diverted[0].why.rpartition(": ")[2] or "remove that rule or route",
            names=("packets of pods",),
        )  # fmt: skip


def check_refused(seen: Observed) -> Iterator[Finding]:
    """Prefixes that the plan refuses, and those that overlap a network of the node."""
    desired = seen.desired
    if desired is None:
        return
    for refusal in desired.refused[:_NAMED]:
        own = refusal.node == desired.me.name
        lost = "new pods get no address of it" if own else "its pods are not reached from here"
        yield Finding(
            "prefixes", Severity.BROKEN,
            f"{refusal.prefix} of {refusal.node} is refused: {refusal.why}: {lost}",
            "give the nodes prefixes that overlap nothing", where=refusal.node,
            names=(f"node {refusal.node} {refusal.prefix}",),
        )  # fmt: skip
    for refusal in desired.tolerated[:_NAMED]:
        yield Finding(
            "prefixes", Severity.BROKEN,
            f"{refusal.prefix} of {refusal.node} {refusal.why}: packets go there, not to pods",
            "remove that network or route from this node", where=refusal.node,
            names=(f"node {refusal.node} {refusal.prefix}",),
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
        if not _is_local(trouble, seen.drops):
            found = seen.underlay.get(trouble.node)
            yield _of_peer(trouble, found.hint if found else "")


def _is_local(trouble: Trouble, drops: Iterable[str]) -> bool:
    return any(trouble.detail == text for text in drops)


def _of_peer(trouble: Trouble, hint: str) -> Finding:
    what, _, remedy = trouble.detail.rpartition(": ")
    alive = trouble.reason == Reason.DAEMON_GONE
    here = f"; on this node {hint}" if hint and not alive else ""
    return Finding(
        "peers", Severity.DEGRADED if alive else Severity.BROKEN,
        f"{trouble.node} is not reached ({trouble.reason}): {what or trouble.detail}{here}",
        f"{remedy}; run `podwirectl doctor` on {trouble.node}", where=trouble.node,
        names=(f"peer {trouble.node}",), since=trouble.since,
    )  # fmt: skip
