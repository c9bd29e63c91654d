"""Tables, disks and ranges that are full, or nearly so."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed
from kernel.limits import FULL, SCARCE


def check_levels(seen: Observed) -> Iterator[Finding]:
    """Tables of the kernel, and the daemon's open files."""
    for level in seen.levels:
        if level.share >= SCARCE:
            severity = Severity.BROKEN if level.share >= FULL else Severity.DEGRADED
            name = f"table of {level.name}"
            yield Finding("limits", severity, str(level), level.remedy, names=(name,))


def check_disk(seen: Observed) -> Iterator[Finding]:
    """Room for the store and the journal."""
    if (disk := seen.disk) and disk.fault:
        yield Finding("limits", Severity.BROKEN, disk.fault, disk.remedy, names=("disk",))


def check_ranges(seen: Observed) -> Iterator[Finding]:
    """Ranges of addresses."""
    for usage in seen.usage:
        if not usage.size or usage.allocated < SCARCE * usage.size:
            continue
        full = usage.allocated >= usage.size
        yield Finding(
            "ranges", Severity.BROKEN if full else Severity.NOTICE,
            f"{usage.allocated} of {usage.size} IPv{usage.version} addresses of network "
            f"{usage.network} are in use" + (": new pods get none" if full else ""),
            "`podwire-ipam list` shows whose they are; give the node a larger pod CIDR",
            names=(f"range of IPv{usage.version}", "ADD with error"),
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
