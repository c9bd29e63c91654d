"""`podwired`, the node daemon: its command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from cni_plugin.host import DEFAULT_DATA_DIR, DEFAULT_SOCKET
from daemon.commands.options import (
    Unusable,
    absolute,
    add_config,
    add_log_level,
)
from daemon.config import DEFAULT_CONFIG
from daemon.signals import catch

COMMANDS = {
    "run": "serve CNI calls and keep the routes to all other nodes",
    "serve": "serve CNI calls, nothing else",
    "check-config": "say whether the configuration and its list of nodes are right",
    "status": "say whether this node's routing is as it should be",
    "history": "list every change that podwire made, or found made by others",
    "cleanup": "take off this node what the daemon leaves in place when it ends",
}
EPILOG = """\
examples:
  podwired check-config                      before the daemon is started or the files are copied
  podwired status                            exit code 0: all is as it should be
  podwired history --since 10m               what happened in the last ten minutes
  podwired history --object 10.244.7.0/24    what happened to one prefix

`podwired COMMAND --help` says more about each.
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

{_SIGNALS}environment: PODWIRE_SOCKET, PODWIRE_DATA_DIR for what the file leaves out;
         NOTIFY_SOCKET (systemd)
see also: podwired check-config, podwired status, podwired history
"""
SERVE = f"""\
Serve the CNI calls of this node, and leave the routes to other nodes alone.

The executable `podwire` in the CNI directory passes its calls to this daemon over a socket, and
works by itself while no daemon runs.

{_SIGNALS}environment: PODWIRE_SOCKET, PODWIRE_DATA_DIR as the options; NOTIFY_SOCKET (systemd)
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run its command; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and words[:1] in (["run"], ["serve"]):
        catch()  # before the daemon is even loaded
    options = _parser(words[0] if words else "").parse_args(words)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except (Unusable, OSError) as error:
        return _fail(error)
    return status


class _Version(argparse.Action):
    """As `podwire --version` prints it; looked up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        from cni_plugin.versions import SUPPORTED

        print(f"podwired {version('podwire')}, CNI {', '.join(SUPPORTED)}")
        parser.exit()


def _parser(chosen: str) -> argparse.ArgumentParser:
    """The parser, complete for the chosen command alone: the others' modules are not loaded."""
    style = argparse.RawDescriptionHelpFormatter
    description = "podwire's node daemon, and the commands that look at it."
    parser = argparse.ArgumentParser(
        "podwired", description=description, epilog=EPILOG, formatter_class=style
    )
    parser.add_argument("--version", "-V", nargs=0, action=_Version, help="print it and end")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name != chosen:
            verbs.add_parser(name, help=summary)
        elif name in _DAEMONS:
            text, configure, run = _DAEMONS[name]
            verb = verbs.add_parser(name, help=summary, description=text, formatter_class=style)
            configure(verb)
            add_log_level(verb)
            verb.set_defaults(run=run)
        else:
            module = import_module(f"daemon.commands.{name.replace('-', '_')}")
            verb = verbs.add_parser(
                name,
                help=summary,
                description=module.DESCRIPTION,
                epilog=module.EPILOG,
                formatter_class=style,
            )
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


def _fail(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    hint = " (are you root?)" if isinstance(error, PermissionError) else ""
    print(f"podwired: {error}{hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
