"""`podwirectl history`: every change that podwire made or found."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ctl.output import DONE, add_output, table, warn
from daemon.journal import Record, as_json, is_journal, previous_file, read, render_time
from daemon.options import Unusable, add_config, files_of

DESCRIPTION = "List every change that podwire made, or found made by other programs, oldest first."
EPILOG = """\
examples:
  podwirectl history --since 10m                    the last ten minutes
  podwirectl history --since 2026-11-21T10:00       since then, UTC
  podwirectl history --object 10.244.7.0/24         of one prefix
  podwirectl history -o json | jq '.[].cause'       for programs

actions:
  added, removed, changed   a change of podwire's own
  restored                  podwire reverted an external change; the cause names the process
  refused                   a conflict, or a connection denied by policies; the cause is the reason
  found                     an external change that podwire left in place
  flapping                  one that podwire reverts again and again; the cause has the number too
  failed                    an outage begins: of a peer, of ADD calls, by a firewall, a full table
  ended                     it is over, or what was refused is

The journal holds the newest changes up to journal.maxBytes of podwired.yaml. It can be read at
any time, whether the daemon runs or not.

The table's last column is the present state, `was ...` of a removed object, or `before -> after`.

exit codes: 0 done, also where nothing matches; 1 the journal cannot be read; 2 wrong usage
"""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HEADER = ("TIME", "ACTION", "OBJECT", "CAUSE", "CHANGE")


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    since = "changes since then: 90s, 10m, 2h, 3d ago, or a time like 2026-11-21T10:00 (UTC)"
    parser.add_argument("--since", metavar="TIME", type=_since, default=0.0, help=since)
    wanted = "changes of objects with this text: a prefix, an address, a device"
    parser.add_argument("--object", metavar="TEXT", default="", help=wanted)
    add_output(parser)
    add_config(parser)
    parser.add_argument("--file", metavar="FILE", type=Path, help="the journal, if not that one's")


def _since(text: str) -> float:
    """Seconds since 1970 of a duration before now, or of a time."""
    span = re.fullmatch(r"(\d{1,9})([smhd])", text, re.ASCII)
    if span:
        return time.time() - int(span[1]) * _SECONDS[span[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        words = f"{text!r} is neither a duration like 10m nor a time like 2026-11-21T10:00"
        raise argparse.ArgumentTypeError(words) from error
    known = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (known - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)


def run(options: argparse.Namespace) -> int:
    """Print the records; the exit status."""
    path = options.file or files_of(options.config).journal
    if path.exists() and not (path.is_file() and is_journal(path)):
        raise Unusable(f"{path} is no journal of podwired: none of its lines is a record")
    records = read(path, options.since, options.object)
    if options.output == "json":
        _print_json(records)
        return DONE
    rows = [_row(record) for record in records]
    if rows:
        print(table(_HEADER, rows))
    elif path.exists() or previous_file(path).exists():
        warn(f"no such change in {path}")
    else:
        warn(f"there is no journal {path} yet: `podwired run` writes it")
    return DONE


def _print_json(records: Iterable[Record]) -> None:
    """One array, a line for each record, written as they are read."""
    separator = "[\n"
    for record in records:
        sys.stdout.write(separator + json.dumps(as_json(record)))
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def _row(record: Record) -> tuple[str, ...]:
    # Milliseconds are enough for a person. What may be long comes last.
    moment = f"{render_time(record.time)[:-4]}Z"
    return moment, record.action, record.object, record.cause, _change(record)


def _change(record: Record) -> str:
    if record.before and record.after and record.before != record.after:
        return f"{record.before} -> {record.after}"
    if record.before and record.action in ("removed", "found"):
        return f"was {record.before}"
    return record.after or record.before
