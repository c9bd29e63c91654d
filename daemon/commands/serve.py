"""`podwired serve`: the CNI calls of this node, without routes to other nodes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cni_plugin.errors import INVALID_ENVIRONMENT, CniError
from daemon.cni_server.service import open_log, serve
from daemon.commands.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_SOCKET,
    FAILED,
    absolute,
    add_log_level,
)
from daemon.signals import Signals

DESCRIPTION = "Serve the CNI calls of this node, and leave the routes to other nodes alone."
EPILOG = """\
The executable `podwire` in the CNI directory hands its calls to this daemon over a socket, and
works by itself while no daemon runs.

signals: TERM, INT   take no further call, finish those under way, end
         USR1        switch the log between info and debug
environment: PODWIRE_SOCKET, PODWIRE_DATA_DIR as the options; systemd's LISTEN_FDS, NOTIFY_SOCKET
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    # As text, so that argparse checks them as it checks the options.
    socket_path = os.environ.get("PODWIRE_SOCKET") or str(DEFAULT_SOCKET)
    data_dir = os.environ.get("PODWIRE_DATA_DIR") or str(DEFAULT_DATA_DIR)
    parser.add_argument("--socket", type=absolute, default=socket_path, help="(%(default)s)")
    parser.add_argument("--data-dir", type=absolute, default=data_dir, help="(%(default)s)")
    add_log_level(parser)


def run(options: argparse.Namespace) -> int:
    """Serve until a signal; the exit status."""
    log = open_log(options.log_level)
    try:
        _check_folder(options.data_dir)
        return serve(options.socket, options.data_dir, log, Signals(log))
    except (CniError, OSError) as error:
        log.error(str(error))
        return FAILED


def _check_folder(path: Path) -> None:
    """Refuse what can be no data directory: every call would fail. Raises CniError."""
    place = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not place.is_dir():
        msg = f"the data directory {path} cannot be: {place} is no directory"
        raise CniError(INVALID_ENVIRONMENT, msg, "--data-dir or PODWIRE_DATA_DIR names it")
