"""Options, exit statuses and output that the commands of `podwirectl` share."""

from __future__ import annotations

import argparse
import sys

DONE, FAILED = 0, 1


def add_output(parser: argparse.ArgumentParser) -> None:
    """-o table|json."""
    text = "table for people, json for programs (default: table)"
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help=text)


def warn(text: str) -> None:
    """Print a line for the operator to stderr, beside the command's output."""
    print(f"podwirectl: {text}", file=sys.stderr)
