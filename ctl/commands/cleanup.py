"""`podwirectl cleanup`: take off this node what the daemon leaves in place when it ends."""

from __future__ import annotations

import argparse
import sys

from ctl.output import DONE, FAILED, warn
from daemon.commands.cleanup import clean_node
from daemon.log import printable
from daemon.options import add_config, files_of, settings_of

DESCRIPTION = """\
Remove from this node what the daemon leaves in place when it ends: routes to other nodes' pods, the
VXLAN device, podwire's nftables tables unless a pod needs them, the CNI configuration, and what
this node published in Kubernetes or etcd.
Only objects with podwire's mark are removed. Pods stay, and lose their routes to other nodes."""
EPILOG = """\
Stop the daemon first. What was removed is printed, and recorded in the journal; a second run finds
nothing. The daemon's configuration stays, and without --data store and journal stay too.

exit codes: 0 nothing is left; 1 something could not be removed, on this node or in Kubernetes or
etcd, or a daemon runs; 2 wrong usage
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    add_config(parser)
    words = "remove store, journal, status and socket, too: pods that run lose their addresses"
    parser.add_argument("--data", action="store_true", help=words)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: argparse.Namespace) -> int:
    """Remove, and print what was removed; the exit status."""
    if not options.yes and not _confirmed():
        return FAILED
    settings, files = settings_of(options.config), files_of(options.config)
    removed = clean_node(settings, files, "podwirectl cleanup", data=options.data)
    print("\n".join(removed.describe()) or "nothing was left")
    for fault in removed.faults:
        warn(f"not removed: {printable(fault)}")
    if removed.published:
        warn(printable(removed.published))
    return FAILED if removed.faults or removed.published else DONE


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        warn("nothing was removed: no terminal to ask on; give --yes to confirm")
        return False
    try:
        answer = input("Cut this node's pods off from those of other nodes? [y/N] ")
    except EOFError:
        print()
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    warn("nothing was removed")
    return False
