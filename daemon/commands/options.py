"""Options that several commands have, and the files that follow from them."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.config import DEFAULT_CONFIG

if TYPE_CHECKING:
    from daemon.config.schema import Settings

DONE, FAILED = 0, 1


class Unusable(Exception):
    """A command cannot do its work; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Files:
    """What the daemon writes for people to read."""

    journal: Path
    status: Path


def absolute(text: str) -> Path:
    """An absolute path, for argparse."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path")
    return Path(text)


def path_from_environment(variable: str, default: Path) -> Path:
    """The variable's path; empty counts as unset. Raises Unusable."""
    text = os.environ.get(variable) or str(default)
    if not text.startswith("/"):
        raise Unusable(f"{variable} is {text!r}, must be an absolute path")
    return Path(text)


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config; None where it was not given."""
    words = f"the daemon's configuration (default: {DEFAULT_CONFIG})"
    parser.add_argument("--config", metavar="FILE", type=Path, help=words)


def add_output(parser: argparse.ArgumentParser) -> None:
    """-o table|json."""
    words = "for people or for programs (default: table)"
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help=words)


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """--log-level."""
    from daemon.log import LEVELS

    parser.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")


def files_of(options: argparse.Namespace) -> Files:
    """Where --config or the default configuration has them; without one, the default places.

    Raises Unusable.
    """
    settings = settings_of(options.config)
    if settings is not None:
        return Files(settings.journal.path, settings.status_file)
    data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    folder = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET).parent
    return Files(data_dir / "journal.jsonl", folder / "status.json")


def settings_of(config: Path | None) -> Settings | None:
    """The settings of a file; None where none is named and the default one does not exist.

    Raises Unusable naming file, line, key and value.
    """
    if config is None and not os.path.lexists(DEFAULT_CONFIG):
        return None
    from daemon.config.load import load_settings
    from daemon.config.yaml import FileFault

    try:
        return load_settings(config or DEFAULT_CONFIG)
    except FileFault as fault:
        raise Unusable(str(fault)) from fault


def tell(text: str) -> None:
    """A line for the person at the terminal, beside the output."""
    print(f"podwired: {text}", file=sys.stderr)


def harmless(text: str) -> str:
    """The text on one line, with nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
