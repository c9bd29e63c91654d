"""All checks, and the order of what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ctl.doctor.checks.differences import check_differences
from ctl.doctor.checks.node import (
    check_disk,
    check_levels,
    check_ranges,
    check_settings,
    check_uplink,
)
from ctl.doctor.checks.paths import check_drops, check_paths, check_stale_flows
from ctl.doctor.checks.peers import check_peers, check_refused
from ctl.doctor.checks.probes import check_probes
from ctl.doctor.checks.service import check_daemon, check_plan, check_status, check_unread
from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed
from daemon.journal import Record
from daemon.routing.authors import authored_part, is_by_kernel

CHECKS: tuple[Callable[[Observed], Iterable[Finding]], ...] = (
    check_plan,
    check_uplink,
    check_differences,
    check_refused,
    check_drops,
    check_paths,
    check_stale_flows,
    check_levels,
    check_ranges,
    check_disk,
    check_status,
    check_peers,
    check_probes,
    check_daemon,
    check_settings,
    check_unread,
)
"""From the data path up: what comes first is the cause of what follows, within one severity."""
RECENT = 300.0
"""Seconds for which a repair is worth a line."""
_NAMED = 5
_OF_PODS = ("attachments", "pods")


def diagnose(seen: Observed) -> tuple[Finding, ...]:
    """All findings, the most likely cause first; pure."""
    found = [finding for check in CHECKS for finding in check(seen)]
    known = [_with_author(f, seen) for f in found]
    known = [replace(f, where=f.where or seen.node) for f in known]
    known += (replace(f, where=seen.node) for f in _repaired(seen, known))
    return tuple(sorted(known, key=lambda f: f.severity))


def concerning(findings: tuple[Finding, ...], what: str, seen: Observed) -> tuple[Finding, ...]:
    """Those that may matter to another node or to a pod; of the node itself, and without a name,
    all; pure.

    What is wrong with this node matters to both. Of a pod a finding names the container where the
    runtime sent no name.
    """
    if not what or what == seen.node:
        return findings
    if seen.desired and what in seen.desired.nodes:
        return tuple(f for f in findings if what in (f.where, *f.nodes) or _is_of_node(f, seen))
    mine = {"", seen.node, seen.probe.title, seen.probe.name}
    return tuple(f for f in findings if f.check not in _OF_PODS or {f.where, f.where[:16]} & mine)


def _is_of_node(finding: Finding, seen: Observed) -> bool:
    return finding.where == seen.node and {*finding.nodes} <= {seen.node}


def _with_author(finding: Finding, seen: Observed) -> Finding:
    """With what the journal knows: who, and since when; not of an earlier container of a pod."""
    attached = seen.attached_since.get(finding.where, 0.0)
    records = [record for record in seen.records if record.time >= attached]
    for name in finding.names:
        for record in reversed(records):
            if record.object.startswith(name) or record.object.endswith(name):
                if record.action == "ended":
                    break
                if record.action in ("found", "flapping", "failed", "refused"):
                    who = authored_part(record.cause) if record.action == "flapping" else ""
                    return replace(finding, since=finding.since or record.time, who=who)
    return finding


def _repaired(seen: Observed, known: Iterable[Finding]) -> Iterator[Finding]:
    """What podwire repaired a short while ago, each object once."""
    wrong = {name for finding in known for name in finding.names}
    latest: dict[str, Record] = {}
    for record in seen.records:
        if record.action == "restored" and seen.now - record.time < RECENT:
            latest[record.object] = record
    fresh = [r for r in latest.values() if r.object not in wrong]
    for record in sorted(fresh, key=_place)[:_NAMED]:
        yield Finding(
            "repaired", Severity.NOTICE,
            f"podwire repaired {record.object}: it was {record.before or 'otherwise'}",
            f"podwirectl history --object {_quote(record.object)}", names=(record.object,),
            since=record.time, who=record.cause,
        )  # fmt: skip


def _place(record: Record) -> tuple[bool, bool, float]:
    """The latest first, but what followed from another change after that."""
    kind = record.object.partition(" ")[0]
    return is_by_kernel(record.cause), kind in ("fdb", "neighbour"), -record.time


def _quote(text: str) -> str:
    return f"'{text}'" if " " in text else text
