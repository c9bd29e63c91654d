"""`podwired`, the node daemon: its command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.config import DEFAULT_CONFIG
from daemon.log import printable
from daemon.options import (
    Unusable,
    VersionAction,
    absolute,
    add_config,
    add_log_level,
    podwirectl,
)
from daemon.signals import catch

COMMANDS = {
    "run": "serve CNI calls and keep the routes to all other nodes",
    "serve": "serve CNI calls only",
    "install": "put the executables into a directory of CNI plugins",
    "uninstall": "take off this node what podwire put there",
}
MOVED = frozenset({"check-config", "cleanup", "history", "status"})
"""Commands that are `podwirectl`'s; for one release `podwired` passes them on."""
EPILOG = """\
`podwired COMMAND --help` explains each. Status, history, the check of the configuration and the
cleanup of a node are commands of podwirectl.
"""
_SIGNALS = """\
signals: TERM, INT   take no further call, finish those in flight, end
         USR1        switch the log between info and debug
"""
RUN = f"""\
Serve this node's CNI calls, and keep its routes to the pods of all other nodes.

Without --config, and where there is no {DEFAULT_CONFIG}, it serves CNI calls
alone, like `podwired serve`. A configuration that is wrong is an error with its file and line, and
exit status 1; container runtimes do without the daemon meanwhile. When the daemon ends, routes and
the CNI configuration stay as they are.

{_SIGNALS}environment: PODWIRE_NODE, PODWIRE_SOCKET, PODWIRE_DATA_DIR for what the file leaves out;
         NOTIFY_SOCKET (systemd)
see also: podwirectl check-config, podwirectl status, podwirectl history
"""
SERVE = f"""\
Serve the CNI calls of this node, and leave the routes to other nodes alone.

The executable `podwire` in the CNI directory passes its calls to this daemon over a socket, and
works by itself while no daemon runs.

{_SIGNALS}environment: PODWIRE_SOCKET, PODWIRE_DATA_DIR as the options; NOTIFY_SOCKET (systemd)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run the daemon; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and words[:1] in (["run"], ["serve"]):
        catch()  # before the daemon is even loaded
    if words and words[0] in MOVED:
        _pass_on(words)
    options = build_parser(words[0] if words else "").parse_args(words)
    try:
        status: int = options.run(options)
    except (Unusable, OSError) as error:
        named = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        text = error.strerror if named and isinstance(error, OSError) else str(error)
        print(f"podwired: {named}{printable(str(text))}", file=sys.stderr)
        return 1
    return status


def _pass_on(words: Sequence[str]) -> NoReturn:
    """Become `podwirectl` with the same arguments."""
    hint = f"`podwired {words[0]}` is now `podwirectl {words[0]}`; the next release has only that"
    print(f"podwired: {hint}", file=sys.stderr, flush=True)
    os.execv(sys.executable, podwirectl(words))


def build_parser(chosen: str) -> argparse.ArgumentParser:
    """The parser, complete for the chosen command alone: the others' modules are not loaded."""
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "podwired", description="podwire's node daemon.", epilog=EPILOG, formatter_class=style
    )
    parser.add_argument("--version", "-V", action=VersionAction, help="print it and end")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, (text, configure, run) in _DAEMONS.items():
        verb = verbs.add_parser(name, help=COMMANDS[name], description=text, formatter_class=style)
        configure(verb)
        add_log_level(verb)
        verb.set_defaults(run=run)
    for name in ("install", "uninstall"):
        if name != chosen:
            verbs.add_parser(name, help=COMMANDS[name])
            continue
        module = import_module(f"daemon.commands.{name}")
        text = module.DESCRIPTION
        verb = verbs.add_parser(name, help=COMMANDS[name], description=text, formatter_class=style)
        module.configure(verb)
        verb.set_defaults(run=module.run)
    return parser


def _add_places(parser: argparse.ArgumentParser) -> None:
    # As text, so that argparse checks them as it checks the options.
    socket_path = os.environ.get("PODWIRE_SOCKET") or str(DEFAULT_SOCKET)
    data_dir = os.environ.get("PODWIRE_DATA_DIR") or str(DEFAULT_DATA_DIR)
    parser.add_argument("--socket", type=absolute, default=socket_path, help="(%(default)s)")
    parser.add_argument("--data-dir", type=absolute, default=data_dir, help="(%(default)s)")


def _run(options: argparse.Namespace) -> int:
    from daemon.run import run

    return run(options.config, options.log_level)


def _serve(options: argparse.Namespace) -> int:
    from daemon.run import serve

    return serve(options.socket, options.data_dir, options.log_level)


_DAEMONS = {"run": (RUN, add_config, _run), "serve": (SERVE, _add_places, _serve)}


if __name__ == "__main__":
    sys.exit(main())
