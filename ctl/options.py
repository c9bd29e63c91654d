"""Options, exit statuses and output that the commands of `podwirectl` share."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime

DONE, FAILED = 0, 1


def add_output(parser: argparse.ArgumentParser) -> None:
    """-o table|json."""
    text = "table for people, json for programs (default: table)"
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help=text)


def warn(text: str) -> None:
    """Print a line for the operator to stderr, beside the command's output."""
    print(f"podwirectl: {text}", file=sys.stderr)


def render_timestamp(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339, in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
    return moment.isoformat().replace("+00:00", "Z")
