"""What `podwired` and `podwirectl` share: options, environment variables, the places of files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.config import DEFAULT_CONFIG, DEFAULT_CONFLIST, DEFAULT_JOURNAL_BYTES, JOURNAL, path_in

if TYPE_CHECKING:
    from daemon.config.schema import Settings


class Unusable(Exception):
    """A command cannot do its work; the message says why and what to do."""


class VersionAction(argparse.Action):
    """--version, as `podwire --version` prints it; looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print it and exit."""
        from importlib.metadata import version

        from cni_plugin.versions import SUPPORTED

        print(f"{parser.prog} {version('podwire')}, CNI {', '.join(SUPPORTED)}")
        parser.exit()


def podwirectl(words: Sequence[str]) -> list[str]:
    """The command line of `podwirectl` by this Python.

    As optimized as this process is: an image may have the bytecode of that alone.
    """
    return [sys.executable, "-I" + "O" * sys.flags.optimize, "-m", "ctl", *words]


def absolute(text: str) -> Path:
    """An absolute path, for argparse."""
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path")
    return Path(text)


def path_from_environment(variable: str, default: Path) -> Path:
    """The variable's path; empty counts as unset. Raises Unusable."""
    try:
        return path_in(os.environ, variable, default)
    except ValueError as error:
        raise Unusable(str(error)) from error


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config; None where it was not given."""
    words = f"the daemon's configuration (default: {DEFAULT_CONFIG})"
    parser.add_argument("--config", metavar="FILE", type=Path, help=words)


def add_log_level(parser: argparse.ArgumentParser) -> None:
    """--log-level."""
    from daemon.log import LEVELS

    parser.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")


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


@dataclass(frozen=True, slots=True)
class NodeFiles:
    """The places of the daemon's files. journal_bytes: what bounds the journal."""

    data_dir: Path
    socket: Path
    journal: Path
    status: Path
    conflist: Path = DEFAULT_CONFLIST
    journal_bytes: int = DEFAULT_JOURNAL_BYTES


def files_of(config: Path | None) -> NodeFiles:
    """The files of the daemon that this configuration, or the default one, describes.

    Without a configuration the default paths. Raises Unusable.
    """
    found = settings_of(config)
    if found is None:
        return default_files()
    conflist = found.conflist.path if found.conflist else DEFAULT_CONFLIST
    journal = found.journal
    return NodeFiles(
        found.data_dir, found.socket, journal.path, found.status_file, conflist, journal.max_bytes
    )


def default_files() -> NodeFiles:
    """The files of a daemon without configuration. Raises Unusable."""
    data_dir = path_from_environment("PODWIRE_DATA_DIR", DEFAULT_DATA_DIR)
    socket = path_from_environment("PODWIRE_SOCKET", DEFAULT_SOCKET)
    return NodeFiles(data_dir, socket, data_dir / JOURNAL, socket.parent / "status.json")
