"""What was seen of a pod's lookups, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ctl.dns.watch import NameCount, Tally
from ctl.output import fields, table
from daemon.log import printable

_ROWS = 20
_LOST_SHARE, _VAIN_SHARE = 0.02, 0.5
_FEW = 10
"""Queries from which on a share says something."""


def totals(counts: Sequence[NameCount]) -> dict[str, int]:
    """The sums of all names."""
    return {
        "queries": sum(count.queries for count in counts),
        "answers": sum(count.answers for count in counts),
        "lost": sum(count.lost for count in counts),
        "repeated": sum(count.repeated for count in counts),
        "inVain": sum(count.codes["NXDOMAIN"] for count in counts),
    }


def is_lossy(counts: Sequence[NameCount]) -> bool:
    """Whether more is lost than happens."""
    found = totals(counts)
    return found["lost"] > found["queries"] * _LOST_SHARE


def find_findings(tally: Tally, missed: int, pod: str = "POD") -> Iterator[str]:
    """What is wrong, and what to do. pod: as commands take it."""
    counts = tally.counts
    queries, in_vain = totals(counts)["queries"], totals(counts)["inVain"]
    if is_lossy(counts):
        lost = f"{totals(counts)['lost']} of {queries} queries had no answer"
        yield (
            f"{lost} ({tally.peak} in the busiest second): the server is overloaded or not reached,"
            " or a limit drops them (clouds allow about 1,000 packets a second for each interface):"
            f" `podwirectl dns {pod} --burst N` finds a limit, `podwirectl trace {pod}"
            " SERVER:53/udp` where queries end, `podwirectl doctor` what is in the way"
        )
    if queries >= _FEW and in_vain > queries * _VAIN_SHARE:
        yield (
            f"{in_vain} of {queries} queries asked for names that do not exist: most are the search"
            f" list's; `podwirectl dns {pod} NAME` shows the setting that ends them"
        )
    failed = sum(count.codes["SERVFAIL"] + count.codes["REFUSED"] for count in counts)
    if failed:
        yield f"{failed} queries were answered with SERVFAIL or REFUSED: see the DNS server's log"
    if missed:
        yield f"{missed} packets came too fast to be read, and are not counted"


def all_as_json(
    seconds: float, pods: Sequence[tuple[str, Tally]], findings: Sequence[str]
) -> dict[str, object]:
    """Of all pods, the shape that docs/operations.md documents."""
    found = [
        {"pod": pod, **totals(tally.counts), "peakPerSecond": tally.peak} for pod, tally in pods
    ]
    return {"seconds": seconds, "pods": found, "findings": list(findings)}


def render_all(seconds: float, pods: Sequence[tuple[str, Tally]], findings: Sequence[str]) -> str:
    """A row for each pod that asked anything."""
    keys = ("queries", "answers", "inVain", "lost", "repeated")
    rows = [
        (pod, *(str(totals(tally.counts)[key] or "-") for key in keys), str(tally.peak))
        for pod, tally in pods
        if tally.counts
    ]
    head = [f"{len(rows)} of {len(pods)} pods asked something in {seconds:g}s"]
    head += [f"!          {printable(finding)}" for finding in findings]
    header = ("POD", "QUERIES", "ANSWERS", "IN VAIN", "LOST", "REPEATED", "MOST A SECOND")
    return "\n".join([*head, *([table(header, rows)] if rows else [])])


def as_json(pod: str, seconds: float, tally: Tally, findings: Sequence[str]) -> dict[str, object]:
    """The shape that docs/operations.md documents."""
    return {
        "pod": pod,
        "seconds": seconds,
        **totals(tally.counts),
        "peakPerSecond": tally.peak,
        "names": [
            {
                "name": count.name,
                "type": count.kind,
                "queries": count.queries,
                "repeated": count.repeated,
                "lost": count.lost,
                "codes": dict(count.codes),
                "slowest": count.slowest or None,
            }
            for count in tally.counts
        ],
        "findings": list(findings),
    }


def render(pod: str, seconds: float, tally: Tally, findings: Sequence[str]) -> str:
    """Sums, findings, and the most frequent names."""
    found = totals(tally.counts)
    sums = (
        f"{found['queries']} in {seconds:g}s, at most {tally.peak} a second: {found['answers']}"
        f" answered, {found['inVain']} in vain, {found['lost']} lost, {found['repeated']} repeated"
    )
    rows = [("pod", pod), ("queries", sums), *(("!", finding) for finding in findings)]
    head = fields(rows, 11)
    if not tally.counts:
        return head
    header = ("NAME", "TYPE", "QUERIES", "LOST", "ANSWERS", "SLOWEST")
    more = len(tally.counts) - _ROWS
    tail = [f"... and {more} more names"] if more > 0 else []
    return "\n".join([head, "", table(header, map(_row, tally.counts[:_ROWS])), *tail])


def _row(count: NameCount) -> tuple[str, ...]:
    codes = ", ".join(f"{number} {code}" for code, number in count.codes.most_common())
    slowest = f"{count.slowest * 1000:.1f}ms" if count.answers else ""
    return count.name, count.kind, str(count.queries), str(count.lost or ""), codes, slowest
