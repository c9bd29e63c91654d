"""`podwirectl diff`: what the kernel has otherwise than planned, now."""

from __future__ import annotations

import argparse
import time

from ctl.differences import AREAS, Compared, compare_node, settle_seconds
from ctl.output import DONE, FAILED, add_output, print_json, table, warn
from ctl.planning import plan_node, require_settings
from daemon.config.schema import Settings
from daemon.log import printable
from daemon.options import Unusable, add_config
from kernel.netlink.socket import Netlink

DESCRIPTION = "Compare what this node should have with what its kernel has, and change nothing."
EPILOG = """\
examples:
  podwirectl diff                      everything
  podwirectl diff --area routes        what leads to other nodes alone
  podwirectl diff -o json | jq '.[].text'

The plan is made now, with the daemon's own planner: from the source's file, or from the last state
that the daemon kept of Kubernetes or etcd. So it works while the daemon is dead, and shows what it
would repair. What a call or the daemon is just about to change is left out: a second look half a
second later (2.5 seconds with differences of policies, 5.5 with peers that left) must find the
same.

areas: settings (sysctls), device (VXLAN), routes (with neighbours and FDB entries), rules and
filter (nftables), policy (network policies), conflist, attachments (the node's side), pods (inside
them).

exit codes: 0 no difference; 1 differences, or not everything could be compared; 2 wrong usage
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = "compare this area alone; may be repeated"
    parser.add_argument("--area", choices=AREAS, action="append", metavar="AREA", help=words)
    add_output(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Print the differences; the exit status."""
    settings = require_settings(options.config)
    with Netlink() as nl:
        compared = _compare(nl, settings)
        if compared.found:
            time.sleep(settle_seconds(compared.found))
            again = _compare(nl, settings)
            same = tuple(each for each in again.found if each in compared.found)
            compared = Compared(same, again.faults)
    chosen = options.area or AREAS
    found = [each for each in compared.found if each.area in chosen]
    if options.output == "json":
        print_json([each.as_json() for each in found])
    elif found:
        print(table(("AREA", "OF", "DIFFERENCE"), [(e.area, e.of, e.text) for e in found]))
    elif not compared.faults:
        print("no difference")
    for area, fault in compared.faults.items():
        warn(f"not compared: {area}: {printable(str(fault))}")
    return FAILED if found or compared.faults else DONE


def _compare(nl: Netlink, settings: Settings) -> Compared:
    planned = plan_node(nl, settings)
    compared = compare_node(nl, settings, planned.desired, planned.entries)
    fault = planned.source_fault or planned.fault
    if not fault:
        return compared
    return Compared(compared.found, {"plan": Unusable(fault), **compared.faults})
