"""Options, exit statuses and output that the commands of `podwirectl` share."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.config import DEFAULT_CONFLIST
from daemon.options import path_from_environment, settings_of

DONE, FAILED = 0, 1


@dataclass(frozen=True, slots=True)
class Files:
    """The places of the daemon's files. journal_bytes: what bounds the journal."""

    data_dir: Path
    socket: Path
    journal: Path
    status: Path
    conflist: Path = DEFAULT_CONFLIST
    journal_bytes: int = 16 << 20


def add_output(parser: argparse.ArgumentParser) -> None:
    """-o table|json."""
    text = "table for people, json for programs (default: table)"
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help=text)


def files_of(options: argparse.Namespace) -> Files:
    """The files of the daemon that --config or the default configuration describes.

    Without a configuration the default paths. Raises Unusable.
    """
    found = settings_of(options.config)
    if found is None:
        data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
        socket = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET)
        return Files(data_dir, socket, data_dir / "journal.jsonl", socket.parent / "status.json")
    conflist = found.conflist.path if found.conflist else DEFAULT_CONFLIST
    journal = found.journal
    return Files(
        found.data_dir, found.socket, journal.path, found.status_file, conflist, journal.max_bytes
    )


def warn(text: str) -> None:
    """Print a line for the operator to stderr, beside the command's output."""
    print(f"podwirectl: {text}", file=sys.stderr)


def printable(text: str) -> str:
    """The text on one line, without characters that a terminal interprets."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
