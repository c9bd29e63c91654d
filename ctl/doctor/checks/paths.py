"""What keeps packets from going where podwire's routes lead: filters, routes, stale NAT."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity, split_remedy
from ctl.doctor.observed import Observed
from daemon.routing.diversions import describe_diverted


def check_drops(seen: Observed) -> Iterator[Finding]:
    """Filters of others that drop packets of pods, of the overlay or of probes."""
    for text in seen.drops:
        what, remedy = split_remedy(text)
        yield Finding(
            "filters", Severity.BROKEN, what, remedy, names=("firewall of this node",),
        )  # fmt: skip


def check_paths(seen: Observed) -> Iterator[Finding]:
    """Where the kernel sends packets of pods."""
    if seen.diverted and not seen.differences:
        peers = seen.desired.nodes.values() if seen.desired else ()
        targets = [diverted.packet.to for diverted in seen.diverted]
        yield Finding(
            "paths", Severity.BROKEN, describe_diverted(list(seen.diverted)),
            split_remedy(seen.diverted[0].why)[1] or "remove that rule or route",
            names=("packets of pods",),
            nodes=tuple(p.name for p in peers if any(t in c for t in targets for c in p.pod_cidrs)),
        )  # fmt: skip


def check_stale_flows(seen: Observed) -> Iterator[Finding]:
    """Connections that are still translated to pods that are gone."""
    if not seen.stale_flows:
        return
    first = seen.stale_flows[0]
    more = f" (and {len(seen.stale_flows) - 1} more)" if len(seen.stale_flows) > 1 else ""
    yield Finding(
        "conntrack", Severity.BROKEN,
        f"a tracked connection to {first.to} port {first.port}{more} leads to {first.pod}, which "
        "is no pod's: its packets get lost while the sender goes on",
        "`podwirectl doctor --fix` forgets it, as `conntrack -D` does", fixable=True,
    )  # fmt: skip
