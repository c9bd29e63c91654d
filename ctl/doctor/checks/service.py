"""The daemon, what it reports, and what is left of the plan where it cannot be made."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from ctl.doctor.finding import Finding, Severity, split_remedy
from ctl.doctor.observed import Observed
from daemon.config import DEFAULT_CONFIG
from daemon.status import PARTS, STALE
from ipam.boot import render_duration
from ipam.errors import StoreDamaged

_SHOWN = {"firewall", "paths", "attachments", "settings", "device", "routes", "ranges",
          "tables", "disk"}  # fmt: skip
"""Parts of the status that checks of this command look at themselves."""
_DENIED = (errno.EACCES, errno.EPERM)
_SEVERITIES = {
    "cluster": Severity.BROKEN,
    "conflist": Severity.BROKEN,
    "takeover": Severity.BROKEN,
    "calls": Severity.BROKEN,
    "unchecked": Severity.NOTICE,
    "limit": Severity.NOTICE,
    "metrics": Severity.NOTICE,
}


def check_daemon(seen: Observed) -> Iterator[Finding]:
    """Whether the daemon works."""
    if seen.settings is None:
        return
    found = seen.daemon.published
    start = "start podwired (systemctl start podwired)"
    if found is None:
        yield Finding("daemon", Severity.DEGRADED, f"the daemon does not run: {seen.daemon.why}",
                      start)  # fmt: skip
    elif not found.running:
        yield Finding(
            "daemon", Severity.DEGRADED, f"the daemon (pid {found.pid}) has ended: nothing is kept",
            start, since=found.time,
        )  # fmt: skip
    elif found.suspended:
        yield Finding(
            "daemon", Severity.DEGRADED,
            f"a signal has stopped the daemon (pid {found.pid}): nothing is kept",
            f"kill -CONT {found.pid}", since=found.time,
        )  # fmt: skip
    elif not 0 <= found.age <= STALE:
        age = render_duration(found.age)
        yield Finding(
            "daemon", Severity.DEGRADED, f"the daemon has not written its status for {age}",
            "journalctl -u podwired; systemctl restart podwired", since=found.time,
        )  # fmt: skip


def check_status(seen: Observed) -> Iterator[Finding]:
    """What the daemon itself found, beyond what other checks look at."""
    status = seen.daemon.status
    if status is None:
        return
    if status.fault:
        yield Finding("node", Severity.BROKEN, f"the node is not ready for pods: {status.fault}",
                      "see the other findings, and journalctl -u podwired")  # fmt: skip
    for part, text in status.faults.items():
        if part in _SHOWN:
            continue
        what, remedy = split_remedy(text)
        what = f"{PARTS.get(part, '')}{what}"
        severity = _SEVERITIES.get(part, Severity.DEGRADED)
        yield Finding(part, severity, what, remedy or "journalctl -u podwired")


def check_plan(seen: Observed) -> Iterator[Finding]:
    """Why there is no plan."""
    planned = seen.planned
    if seen.settings is None:
        yield Finding(
            "plan", Severity.NOTICE,
            f"there is no {DEFAULT_CONFIG}: pods' links alone were compared; routes, rules, "
            "filters and other nodes were not looked at",
            "name the daemon's configuration, if it has one (--config)",
        )  # fmt: skip
    if planned and planned.source_fault:
        yield Finding(
            "source", Severity.BROKEN, f"the cluster is not known: {planned.source_fault}",
            "podwirectl check-config",
        )  # fmt: skip
    if planned and planned.fault:
        yield Finding("plan", Severity.BROKEN, f"this node cannot be planned: {planned.fault}",
                      "correct the source, or the node's addresses")  # fmt: skip


def check_unread(seen: Observed) -> Iterator[Finding]:
    """What could not be looked at; areas with one cause in one finding."""
    areas: dict[str, list[str]] = {}
    for area, error in seen.unreadable.items():
        areas.setdefault(str(error), []).append(area)
    remedies = {str(error): _remedy(error) for error in seen.unreadable.values()}
    for why, names in areas.items():
        what = f"{', '.join(names)} could not be read: {why}"
        yield Finding("unread", Severity.DEGRADED, what, remedies[why])


def _remedy(error: Exception) -> str:
    if isinstance(error, StoreDamaged):
        return "let any pod of the node start or stop: the CNI call rebuilds the database"
    denied = (getattr(e, "errno", None) in _DENIED for e in (error, error.__cause__))
    if any(denied):
        return "run as root, on the node"
    return "run `podwirectl doctor` again; journalctl -u podwired"
