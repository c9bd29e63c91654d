"""`podwirectl`: the command line of the operator's tool."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ctl.commands import COMMANDS
from ctl.output import FAILED, warn
from daemon.options import Unusable, VersionAction
from ipam.errors import IpamError
from kernel.errors import KernelError

DESCRIPTION = """\
Inspect podwire on this node. Commands work from the node's own state: the daemon need not run, and
no API server is asked, but by cleanup."""
EPILOG = """\
examples:
  podwirectl status                           exit status 0: everything is in sync
  podwirectl doctor                           what is wrong, why, and what to do
  podwirectl pods 10.244.7.12                 which pod has this address?
  podwirectl peers                            the other nodes, and whether they are reached
  podwirectl trace shop/cart 10.244.7.12      where packets end on their way, and why
  podwirectl diff                             what the kernel has otherwise than planned
  podwirectl history --since 10m              what changed in the last ten minutes
  podwirectl history --object 10.244.7.0/24   what happened to one prefix
  podwirectl check-config                     before the daemon starts or the files are copied

`podwirectl COMMAND --help` explains each, and shows examples; -o json is for programs.
"""
_STYLE = argparse.RawDescriptionHelpFormatter


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run its command; the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(build_parser(words[0] if words else "").parse_args(words))
    except KeyboardInterrupt:
        _drop_output()
        warn("interrupted")
        return FAILED


def _run(options: argparse.Namespace) -> int:
    if sys.stdout is None:
        warn("stdout is closed: there is no place for the answer")
        return FAILED
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return FAILED
    except (Unusable, OSError, KernelError, IpamError) as error:
        _drop_output()
        hint = " (are you root?)" if isinstance(error, PermissionError) else ""
        warn(f"{error}{hint}")
        return FAILED
    return status


def _drop_output() -> None:
    """What is left of our output goes nowhere: Python would fail to write it again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def build_parser(chosen: str) -> argparse.ArgumentParser:
    """The parser, complete for the chosen command alone: the others' modules are not loaded."""
    parser = argparse.ArgumentParser(
        "podwirectl", description=DESCRIPTION, epilog=EPILOG, formatter_class=_STYLE
    )
    parser.add_argument("--version", "-V", action=VersionAction, help="print it and end")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name != chosen:
            verbs.add_parser(name, help=summary)
            continue
        module = import_module(f"ctl.commands.{name.replace('-', '_')}")
        verb = verbs.add_parser(
            name,
            help=summary,
            description=module.DESCRIPTION,
            epilog=module.EPILOG,
            formatter_class=_STYLE,
        )
        module.configure(verb)
        verb.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
