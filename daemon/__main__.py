"""`podwired`, the node daemon."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cni_plugin.errors import CniError
from cni_plugin.host import DEFAULT_DATA_DIR
from daemon.listening import Listener, listen
from daemon.log import LEVELS, Log
from daemon.notify import inherited_socket, notify
from daemon.server import Server
from daemon.signals import stop_on_signals
from daemon.world import daemon_host

DEFAULT_SOCKET = Path("/run/podwire/podwire.sock")
STOP_SECONDS = 30.0

EPILOG = """\
The executable `podwire` in the CNI directory hands its calls to this daemon over a socket, and
works by itself while no daemon runs.

signals: TERM, INT   take no further call, finish those under way, end
         USR1        switch the log between info and debug
environment: PODWIRE_SOCKET, PODWIRE_DATA_DIR as the options; systemd's LISTEN_FDS, NOTIFY_SOCKET
"""


def main() -> int:
    """Parse, wire, serve; the exit status."""
    options = _parser().parse_args()
    log = Log(options.log_level, journal="JOURNAL_STREAM" in os.environ)
    try:
        return _serve(options, log)
    except (CniError, OSError) as error:
        log.error(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("podwired", description="podwire's node daemon")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    serve = verbs.add_parser(
        "serve",
        help="serve CNI calls",
        description="Serve the CNI calls of this node.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    env = os.environ
    # As text, so that argparse checks them as it checks the options.
    socket_path = env.get("PODWIRE_SOCKET") or str(DEFAULT_SOCKET)
    data_dir = env.get("PODWIRE_DATA_DIR") or str(DEFAULT_DATA_DIR)
    serve.add_argument("--socket", type=_absolute, default=socket_path, help="(%(default)s)")
    serve.add_argument("--data-dir", type=_absolute, default=data_dir, help="(%(default)s)")
    serve.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")
    return parser


def _absolute(text: str) -> Path:
    if not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an absolute path")
    return Path(text)


def _serve(options: argparse.Namespace, log: Log) -> int:
    inherited = inherited_socket()
    listener = Listener(inherited) if inherited else listen(options.socket)
    with listener, daemon_host(options.data_dir) as host:
        server = Server(listener, host, log)
        stop = stop_on_signals(log)
        server.start()
        notify("READY=1")
        log.info("serving", socket=listener, data_dir=options.data_dir)
        stop.wait()
        notify("STOPPING=1")
        done = server.stop(STOP_SECONDS)
        log.info("stopped" if done else "stopped with calls under way")
    return 0 if done else 1


if __name__ == "__main__":
    sys.exit(main())
