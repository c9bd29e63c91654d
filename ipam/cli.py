"""`podwire-ipam` as a person's command: look at the store, and repair it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser

DEFAULT_DATA_DIR = "/var/lib/podwire"

EPILOG = """\
examples:
  podwire-ipam list                               every address that is held
  podwire-ipam list -o json                       the same, for programs
  podwire-ipam show 10.88.0.7                     who holds an address
  podwire-ipam show 3f1c9a                        what a container holds (start of its ID)
  podwire-ipam release 10.88.0.7                  free a leaked address, after asking
  podwire-ipam import-host-local /var/lib/cni/networks/podnet
                                                  take over from the reference host-local

exit codes:
  0  done
  1  failed: the database cannot be used, or an import conflicts
  2  wrong usage
  3  no such address or container
  4  not done: declined, no terminal to ask on, or the address is in several networks
"""


HINT_DAMAGED = """\
Nothing was changed, and running pods keep their network. Let any pod of the node start or stop:
the CNI call rebuilds the database from the pods' links and from what can still be read, and keeps
the damaged one beside it as podwire.db.damaged-TIME. Do not delete it: that would lose the rest."""


def main(argv: Sequence[str]) -> int:
    """Run one command (`argv` without the program's name); returns the exit code."""
    from ipam.errors import IpamError, StoreDamaged

    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except IpamError as error:
        print(f"podwire-ipam: {error}", file=sys.stderr)
        if isinstance(error, StoreDamaged):
            print(HINT_DAMAGED, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again at exit.
        sys.stdout = None
        return 1
    except OSError as error:
        hint = " (are you root?)" if isinstance(error, PermissionError) else ""
        where = f"{error.filename}: " if error.filename else ""
        print(f"podwire-ipam: {where}{error.strerror or error}{hint}", file=sys.stderr)
        sys.stdout = None
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\npodwire-ipam: nothing was changed", file=sys.stderr)
        return 4
    return code


def build_parser() -> ArgumentParser:
    """The parser of the command line."""
    from argparse import ArgumentParser, RawDescriptionHelpFormatter

    parser = ArgumentParser(
        prog="podwire-ipam",
        description="Look at podwire's addresses, and repair them.",
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    _add_common(parser, os.environ.get("PODWIRE_DATA_DIR") or DEFAULT_DATA_DIR, "text")
    _add_commands(parser)
    return parser


def _add_common(parser: ArgumentParser, data_dir: str, output: str) -> None:
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        default=data_dir,
        help=f"folder of podwire.db (default: $PODWIRE_DATA_DIR, or {DEFAULT_DATA_DIR})",
    )
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default=output, help="for people or programs"
    )


def _add_commands(parser: ArgumentParser) -> None:
    from argparse import SUPPRESS

    from ipam import commands

    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, run: object) -> ArgumentParser:
        subparser = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:])
        _add_common(subparser, SUPPRESS, SUPPRESS)
        subparser.add_argument("--network", metavar="NAME", help="this network alone")
        subparser.set_defaults(run=run)
        return subparser

    add("list", "list every address that is held", commands.list_allocations)
    show = add("show", "show who holds an address, or what a container holds", commands.show)
    show.add_argument("what", metavar="ADDRESS-OR-CONTAINER", help="start of the ID is enough")
    release = add("release", "free an address by hand; asks first", commands.release)
    release.add_argument("address", metavar="ADDRESS", type=_address)
    release.add_argument("--yes", action="store_true", help="do not ask")
    take = add(
        "import-host-local",
        "take over the addresses that the reference plugin host-local gave out",
        commands.import_host_local,
    )
    take.add_argument("directory", metavar="DIR", help="its folder of one network")


def _address(text: str) -> str:
    from argparse import ArgumentTypeError

    from ipam.json_section import parse_address

    try:
        return str(parse_address(text))
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is not an IP address") from error
