"""Packets of a pod that were sent and not answered."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed


def check_probes(seen: Observed) -> Iterator[Finding]:
    """Symptoms: where another finding has the cause, that comes first."""
    probe = seen.probe
    if probe.peers:
        name, address = probe.peers[0]
        more = f" (and {len(probe.peers) - 1} more)" if len(probe.peers) > 1 else ""
        is_located = probe.trace is not None and probe.trace.is_located
        why = f": {probe.trace.summary}" if probe.trace else ""
        alike = (
            "; nor does another pod" if probe.alike == 1 else f"; nor do {probe.alike} other pods"
        )
        yield Finding(
            "probes", Severity.BROKEN if is_located else Severity.DEGRADED,
            f"{probe.title} gets no answer from {name}{more}, which answers this node at {address}"
            f"{why}{alike if probe.alike else ''}",
            f"remove what is in the way; `podwirectl trace {probe.name} {address}` shows the hops",
            where=probe.title, nodes=tuple(name for name, _address in probe.peers),
        )  # fmt: skip
    if probe.mtu_above:
        pod, node = probe.mtu_above
        yield Finding(
            "probes", Severity.DEGRADED,
            f"{probe.title} has MTU {pod} on its link, of which the node's end has {node}: longer "
            "packets get lost", f"set the MTU in the pod to {node}", where=probe.title,
        )  # fmt: skip
    if probe.servers:
        yield Finding(
            "dns", Severity.DEGRADED,
            f"DNS is mute: {probe.title} gets no answer from {', '.join(probe.servers)}",
            f"`podwirectl trace {probe.name} {probe.servers[0]}:53/udp` shows where queries end; "
            f"`podwirectl dns {probe.name}`",
            where=probe.title,
        )  # fmt: skip
