"""`podwirectl doctor`: what is wrong, where, since when, by whom, and what to do."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from ctl.doctor.diagnose import concerning, diagnose
from ctl.doctor.finding import Finding, Severity
from ctl.doctor.fix import fix
from ctl.doctor.observe import Observer
from ctl.output import DONE, FAILED, add_output, print_json, warn
from ctl.planning import read_snapshot
from daemon.journal import render_time
from daemon.log import printable
from daemon.options import add_config, files_of, settings_of
from ipam.boot import render_duration

DESCRIPTION = """\
Find out what is wrong with this node's network, the most likely cause first. The daemon need not
run, and no API server is asked."""
EPILOG = """\
examples:
  podwirectl doctor                   the node and its pods: a line for each finding
  podwirectl doctor default/web       the same with packets of that pod; of other pods nothing
  podwirectl doctor node-2            what is wrong on the way to another node
  podwirectl doctor --fix             repair what podwire may, then look again
  podwirectl doctor -o json           for programs: {"ok", "node", "findings": [...]}

Packets are sent: echo requests of pods to other nodes, and a DNS query of one of them.

severities:
  broken    packets of pods get lost, or pods cannot be attached
  degraded  it works, but something is missing, or will fail later
  notice    worth knowing: what podwire repaired in the last minutes, ranges that are nearly full

exit codes: 0 nothing is wrong, whatever notices there are; 1 something is broken or degraded;
2 wrong usage
"""
_SETTLE = 1.0
"""Seconds after which what a daemon that goes on repairs is repaired."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = "a pod of this node (name, container ID, address, link), or another node"
    parser.add_argument("what", metavar="POD|NODE", nargs="?", default="", help=words)
    words = "repair what podwire may: as its daemon does, where that does not run"
    parser.add_argument("--fix", action="store_true", help=words)
    add_output(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Print the findings; the exit status."""
    settings, files = settings_of(options.config), files_of(options.config)
    known = read_snapshot(settings)[0] if settings and options.what else None
    peers = {node.name for node in known.nodes} if known else set[str]()
    pod = "" if options.what in peers else options.what
    seen = Observer(settings, files, pod).read()
    if options.fix:
        for line in fix(seen, files):
            warn(line)
        time.sleep(_SETTLE)
        seen = Observer(settings, files, pod).read()
    findings = concerning(diagnose(seen), options.what, seen)
    if options.output == "json":
        print_json(_as_json(seen.node, findings))
    else:
        for line in _render(seen.node, findings, seen.now):
            print(line)
    return DONE if _is_ok(findings) else FAILED


def _is_ok(findings: Sequence[Finding]) -> bool:
    return all(finding.severity is Severity.NOTICE for finding in findings)


def _as_json(node: str, findings: Sequence[Finding]) -> dict[str, object]:
    return {"ok": _is_ok(findings), "node": node, "findings": list(map(_finding, findings))}


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "severity": str(finding.severity),
        "check": finding.check,
        "what": finding.what,
        "where": finding.where,
        "since": None if finding.since is None else render_time(finding.since),
        "who": finding.who,
        "do": finding.do,
        "fixable": finding.fixable,
    }


def _render(node: str, findings: Sequence[Finding], now: float) -> list[str]:
    if not findings:
        return [f"nothing is wrong with {node}"]
    return [printable(f"{f.severity!s:<9}{_line(f, now)}") for f in findings]


def _line(finding: Finding, now: float) -> str:
    since = "" if finding.since is None else f"for {render_duration(now - finding.since)}"
    notes = ", ".join(filter(None, (since, finding.who)))
    note = f" ({notes})" if notes else ""
    return f"{finding.where}: {finding.what}{note}. To do: {finding.do}"
