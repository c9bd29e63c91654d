"""Kernel settings and links of the node that no plan names."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed
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
