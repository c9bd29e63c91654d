"""Rules of other programs on the packets' way."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed


def check_drops(seen: Observed) -> Iterator[Finding]:
    """Filters that drop packets of pods, of the overlay or of probes."""
    for text in seen.drops:
        what, _, remedy = text.rpartition(": ")
        yield Finding(
            "filters", Severity.BROKEN, what, remedy, names=("firewall of this node",),
        )  # fmt: skip
