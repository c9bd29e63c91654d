"""What the kernel has otherwise than planned: the comparison of `podwirectl diff`, weighed."""

from __future__ import annotations

from collections.abc import Iterator

from ctl.differences import AREAS, Difference
from ctl.doctor.finding import Finding, Severity
from ctl.doctor.observed import Observed
from kernel.model import Address, FdbEntry, Link, Neighbour, Route, Sysctl

_NAMED = 20
"""Differences with a finding each; of more of them, the number is given."""
_ORDER = ("device", *(area for area in AREAS if area != "device"))
"""Areas from the data path up: what an earlier one lacks takes along what later ones have."""
_LAYERS = (Link, Address, FdbEntry, Neighbour, Route)
_FIXED = ("settings", "device", "routes", "attachments", "pods")
"""Areas that `doctor --fix` repairs while no daemon runs."""


def check_differences(seen: Observed) -> Iterator[Finding]:
    """All of them, with what they mean for pods."""
    found = sorted(seen.differences, key=_rank)
    devices = [(d, d.noun.name) for d in found if d.area == "device" and isinstance(d.noun, Link)]
    for device, name in devices:
        if not device.observed or name not in seen.links or not seen.links[name].up:
            found = [d for d in found if d is device or not _goes_along(d, name)]
    for lost in [d for d in found if d.area == "pods" and _is_pair_gone(d)]:
        found = [d for d in found if d is lost or not _went_with(d, lost)]
    findings = [_finding(each, seen) for each in found]
    yield from findings[:_NAMED]
    more = findings[_NAMED:]
    if more:
        listing = "diff" if seen.settings else "pods"
        yield Finding(
            "diff", min(f.severity for f in more), f"{len(more)} more objects are not as planned",
            f"`podwirectl {listing}` lists them; {more[0].do}",
            fixable=any(f.fixable for f in more),
        )  # fmt: skip


def _rank(each: Difference) -> tuple[bool, int, int]:
    fitting = (number for number, kind in enumerate(_LAYERS) if isinstance(each.noun, kind))
    layer = next(fitting, len(_LAYERS))
    return not each.desired, _ORDER.index(each.area), layer


def _goes_along(each: Difference, device: str) -> bool:
    """Whether an object went with the device, and comes back with it."""
    noun = each.noun
    if isinstance(noun, Sysctl):
        return device in noun.path.split("/")
    if isinstance(noun, Address | FdbEntry | Neighbour | Route):
        return noun.link == device and bool(each.desired)
    return False


def _is_pair_gone(each: Difference) -> bool:
    """Whether either end of an attachment's pair is not there: only a new ADD makes another."""
    noun = each.noun
    return bool(each.of) and isinstance(noun, Link) and noun.kind == "veth" and not each.observed


def _went_with(each: Difference, lost: Difference) -> bool:
    same = (each.area, each.of) == (lost.area, lost.of)
    return same and isinstance(lost.noun, Link) and _goes_along(each, lost.noun.name)


def _finding(each: Difference, seen: Observed) -> Finding:
    severity = Severity.DEGRADED if not each.desired else Severity.BROKEN
    if each.area in ("filter", "conflist"):
        severity = Severity.DEGRADED
    remedy, fixable = _remedy(each, seen)
    return Finding(
        each.area, severity, f"{_subject(each)}{each.text}{_meaning(each)}", remedy,
        where=each.of if each.area in ("attachments", "pods") else "", names=_names(each),
        fixable=fixable, nodes=(each.of,) if each.area == "routes" and each.of else (),
    )  # fmt: skip


def _remedy(each: Difference, seen: Observed) -> tuple[str, bool]:
    """What to do, and whether `doctor --fix` does that."""
    if _is_pair_gone(each):
        return "recreate the pod", False
    published = seen.daemon.published
    if published and published.running:
        if published.suspended:
            return "`podwirectl doctor --fix`: podwired goes on, and repairs it", True
        return "`journalctl -u podwired` says why podwired, which runs, does not repair it", False
    is_stray = each.area == "attachments" and not each.desired  # of the conflist's bridge
    fixable = each.area in _FIXED and not is_stray
    ways = (
        "start podwired, which repairs it" if seen.settings else "",
        "`podwirectl doctor --fix`" if fixable else "",
        "recreate the pod" if each.area == "pods" else "",
    )
    return ", or ".join(filter(None, ways)), fixable


def _subject(each: Difference) -> str:
    return f"pod {each.of}: " if each.area in ("attachments", "pods") and each.of else ""


def _meaning(each: Difference) -> str:
    if not each.desired:
        return ""
    if each.area == "routes" and each.of:
        return f": pods of {each.of} are not reached"
    if each.area == "device":
        return ": pods of other nodes are not reached"
    if each.area == "rules":
        return ": masquerade and host ports fail"
    if each.area == "settings":
        return ": packets of pods are not forwarded"
    return ""


def _names(each: Difference) -> tuple[str, ...]:
    """How the journal may name the object."""
    if each.area in ("attachments", "pods") and each.of:
        return each.name, f" {each.of}", f" container {each.of[:16]}"
    return (each.name,)
