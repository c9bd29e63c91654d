"""`podwired`, the node daemon, and the commands that look at it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from daemon.caught import catch
from daemon.commands.options import Unusable

COMMANDS = {
    "run": "serve CNI calls, and keep the routes to all other nodes",
    "serve": "serve CNI calls, and nothing else",
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


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run the one command that was asked for; the exit status."""
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
            continue
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
