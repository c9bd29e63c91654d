"""`podwirectl status`: whether this node's routing is in sync, and what is wrong."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ctl.output import DONE, FAILED, add_output, fields, print_json, render_age, table, warn
from daemon.options import Unusable, add_config, files_of, settings_of
from daemon.probes.report import HealthReport
from daemon.status import STALE, NodeStatus, NoStatus, Published, as_json, read_status
from ipam.boot import render_duration
from kernel.errors import KernelError

DESCRIPTION = "Show whether this node's routes to all other nodes are in sync, and what is wrong."
EPILOG = """\
entries are routes, neighbours and FDB entries (MAC address -> node) of the other nodes' prefixes;
peers are probed, unless podwired.yaml says `health: false`:
  established      answers, with packets of pods' MTU, over the pod network
  pending          not tried yet         connecting   probed, no answer yet
  retrying         answered before       failed       does not answer any more
reasons:
  overlay-blocked  its node answers, over the pod network it does not
  underlay-down    nothing of it answers
  daemon-gone      its kernel answers, its podwired does not
  mtu              small packets arrive, those of pods' MTU do not
  one-way          packets arrive in one direction alone

Packets are sent: echo requests of the pods to other nodes, and a DNS query of one of them; with
--file none are.

exit codes:
  0  everything is in sync, and pods get answers
  1  something is wrong: see the lines with `!`
  2  the daemon does not run, or there is no status to be read; or wrong usage
"""
NO_DAEMON = 2
_ROWS = 20
"""Refused prefixes that are listed."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_output(parser)
    add_config(parser)
    parser.add_argument("--file", metavar="FILE", type=Path, help="the status, if not that one's")


def run(options: argparse.Namespace) -> int:
    """Print the status; the exit status."""
    try:
        found = read_status(options.file or files_of(options.config).status)
    except OSError as error:
        text = f"{error.filename} cannot be read: {error.strerror}" if error.filename else error
        warn(f"{text}{': are you root?' if isinstance(error, PermissionError) else ''}")
        return NO_DAEMON
    except (NoStatus, Unusable) as error:
        start = ": start `podwired run` with a podwired.yaml, or name the one it has: --config"
        warn(f"{error}{start if isinstance(error, NoStatus) and not options.file else ''}")
        return NO_DAEMON
    troubles = _troubles(found)
    beyond = found.status.health.lines if found.status.health else ()
    beyond += () if options.file else _ask_pods(options.config)
    if options.output == "json":
        print_json(_as_json(found, troubles, beyond))
    else:
        print(_render(found, troubles, beyond))
    if not found.running:
        warn("the daemon does not run any more: start `podwired run`")
        return NO_DAEMON
    return FAILED if troubles or beyond else DONE


def _ask_pods(config: Path | None) -> tuple[str, ...]:
    """What packets of this node's pods show, which its daemon does not send."""
    from ctl.doctor.checks.probes import check_probes
    from ctl.doctor.observe import Observer
    from ctl.doctor.observed import Observed

    settings = settings_of(config)
    if settings is None:
        return ()
    try:
        probe = Observer(settings, files_of(config)).read_probe()
    except (KernelError, OSError) as error:
        return (f"what pods reach cannot be seen: {error}",)
    found = check_probes(Observed(time.time(), settings, probe=probe))
    return tuple(f"{finding.what}. To do: {finding.do}" for finding in found)


def _troubles(found: Published) -> tuple[str, ...]:
    if not found.running:
        return ("the daemon that wrote this has ended", *found.status.troubles)
    if found.suspended:
        return (describe_suspended(found.pid), *found.status.troubles)
    if not 0 <= found.age <= STALE:
        age = render_duration(found.age)
        return (f"the daemon has not written for {age}: is it stuck?", *found.status.troubles)
    return found.status.troubles


def describe_suspended(pid: int) -> str:
    """The finding of a daemon that a signal has stopped."""
    return f"a signal has stopped the daemon: nothing is kept or repaired: `kill -CONT {pid}`"


def _as_json(
    found: Published, troubles: tuple[str, ...], beyond: tuple[str, ...]
) -> dict[str, object]:
    head = {
        "ok": not troubles and not beyond,
        "inSync": not troubles,
        "troubles": [*troubles, *beyond],
        "running": found.running,
        "pid": found.pid,
        "time": found.time,
        "age": round(found.age, 1),
    }
    status = as_json(found.status)
    return {**head, "entriesInSync": status.pop("inSync"), **status}


def _render(found: Published, troubles: tuple[str, ...], beyond: tuple[str, ...]) -> str:
    status = found.status
    rows = (
        ("node", f"{status.node} {_headline(status, troubles, beyond)}"),
        ("pod CIDRs", ", ".join(status.prefixes) or "none"),
        ("back end", f"{status.backend}, pods' MTU {status.mtu or 'unknown'}"),
        ("underlay", status.underlay or "unknown"),
        ("source", status.source),
        ("peers", _peers(status)),
        ("entries", f"{status.in_sync} of {status.wanted} as planned"),
        ("attachments", f"{status.attachments_in_sync} of {status.attachments} as planned"),
        *(("dropped", dropped) for dropped in [_dropped(status)] if dropped),
        ("last error", _last_error(status)),
        ("written", f"{render_duration(found.age)} ago by pid {found.pid}"),
        *(("!", trouble) for trouble in (*troubles, *beyond)),
    )
    lines = [fields(rows)]
    if status.refused:
        refused = [(r.node, r.prefix, r.why) for r in status.refused[:_ROWS]]
        lines += ["", table(("NODE", "REFUSED", "WHY"), refused)]
        if len(status.refused) > _ROWS:
            lines.append(f"... and {len(status.refused) - _ROWS} more: -o json has all of them")
    if status.health and status.health.troubles:
        lines += ["", *_peer_table(status.health)]
    return "\n".join(lines)


def _headline(status: NodeStatus, troubles: tuple[str, ...], beyond: tuple[str, ...]) -> str:
    """The worst finding: the exit status follows from the same."""
    if troubles:
        return "is NOT in sync"
    if status.health and status.health.unreached:
        return f"does NOT reach {status.health.unreached} of {status.peers} peers"
    if status.health and status.health.lines:
        return "does NOT probe its peers"
    return "is in sync, and its pods are NOT well" if beyond else "is in sync"


def _peers(status: NodeStatus) -> str:
    """How many there are, and how many in each state where they are probed."""
    states = str(status.health) if status.health else ""
    return f"{status.peers}: {states}" if states and status.peers else str(status.peers)


def _dropped(status: NodeStatus) -> str:
    """What the filter of peers dropped; empty where nothing was."""
    texts = {
        "vxlan": "VXLAN packets that no peer sent",
        "probes": "probes that no peer sent",
        "limited": "probes beyond the rate of one address",
        "pods": "packets of pods to peers' VXLAN or probes",
    }
    counts = ((status.dropped.get(reason, 0), text) for reason, text in texts.items())
    return ", ".join(f"{count} {text}" for count, text in counts if count)


def _peer_table(health: HealthReport) -> list[str]:
    rows = [
        (t.node, t.state, render_age(t.since), t.reason, t.detail) for t in health.troubles[:_ROWS]
    ]
    lines = [table(("PEER", "STATE", "FOR", "REASON", "WHAT TO DO"), rows)]
    more = health.connecting + health.retrying + health.failed - len(rows)
    return [*lines, f"... and {more} more"] if more > 0 else lines


def _last_error(status: NodeStatus) -> str:
    if not status.last_error:
        return "none"
    end = f", over for {render_age(status.last_error_over)}" if status.last_error_over else ""
    return f"{status.last_error} ({render_age(status.last_error_time)} ago{end})"
