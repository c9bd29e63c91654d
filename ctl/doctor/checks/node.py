"""What no plan names: settings and links of the node, and tables, disks and ranges that fill up."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed
from kernel.limits import FULL, SCARCE
from kernel.sysctl import dotted

DEFAULT_FORWARDING = "net/ipv4/conf/default/forwarding"


def check_settings(seen: Observed) -> Iterator[Finding]:
    """What links get that are made from now on."""
    desired = seen.desired
    has_ipv4 = desired and any(p.version == 4 for p in desired.pod_cidrs)
    if has_ipv4 and seen.sysctls.get(DEFAULT_FORWARDING) == "0":
        name = dotted(DEFAULT_FORWARDING)
        yield Finding(
            "settings", Severity.NOTICE,
            f"{name} is 0: links that are made from now on do not forward, but for podwire's",
            f"set {name} to 1 unless that is meant", names=(f"sysctl {DEFAULT_FORWARDING}",),
        )  # fmt: skip


def check_uplink(seen: Observed) -> Iterator[Finding]:
    """The link that leads to other nodes."""
    uplink = seen.links.get(seen.desired.uplink) if seen.desired else None
    if uplink and not uplink.up:
        yield Finding(
            "links", Severity.BROKEN,
            f"link {uplink.name}, by which other nodes are reached, is down",
            f"ip link set {uplink.name} up", names=(f"link {uplink.name}",),
        )  # fmt: skip


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
