"""What the commands of `podwirectl` share: exit statuses, -o, values of options, and output."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from daemon.log import printable
from ipam.boot import render_duration
from ipam.table import render_table

DONE, FAILED = 0, 1


def add_output(parser: argparse.ArgumentParser) -> None:
    """-o table|json."""
    text = "table for people, json for programs (default: table)"
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help=text)


def number(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    """A value of an option within these bounds, for argparse."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}{unit}")
        return value

    return parse


def count(low: int, high: int, unit: str = "") -> Callable[[str], int]:
    """The same of whole numbers."""
    parse = number(low, high, unit)

    def parse_whole(text: str) -> int:
        value = parse(text)
        if not value.is_integer():
            raise argparse.ArgumentTypeError(f"{text} is no whole number")
        return int(value)

    return parse_whole


def warn(text: str) -> None:
    """Print a line for the operator to stderr, beside the command's output."""
    print(f"podwirectl: {text}", file=sys.stderr)


def create_private(path: Path) -> IO[bytes]:
    """A new file that root alone can read. Raises OSError, also where there is one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return open(os.open(path, flags, 0o600), "wb")


def print_json(value: object) -> None:
    """Print what -o json is for."""
    print(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns, with a dash in each cell that has nothing. Cells may be hostile."""
    return render_table(header, [tuple(printable(cell) or "-" for cell in row) for row in rows])


def fields(rows: Iterable[tuple[str, object]], width: int = 12) -> str:
    """A line for each name and value, with a dash for nothing. Values may be hostile."""
    lines = (f"{name:<{width}}{printable(str(value or '')) or '-'}" for name, value in rows)
    return "\n".join(lines)


def render_age(since: float) -> str:
    """How long ago a time was. since: seconds since 1970."""
    return render_duration(max(0.0, time.time() - since))


def render_timestamp(seconds: float) -> str:
    """Seconds since 1970 as RFC 3339, in UTC."""
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
    return moment.isoformat().replace("+00:00", "Z")
