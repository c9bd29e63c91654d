"""`podwirectl trace`: the way of a packet, hop by hop, and where it ends."""

from __future__ import annotations

import argparse
import signal
import time
from typing import NoReturn

from ctl.attachments import read_attachments
from ctl.output import DONE, FAILED, add_output, count, number, print_json
from ctl.planning import plan_node
from ctl.target import Target, parse_target
from ctl.trace.ends import check_port, find_destination, find_source
from ctl.trace.follow import Request, follow
from ctl.trace.hop import Trace, as_json, render
from daemon.options import Unusable, add_config, files_of, settings_of
from daemon.probes.peers_file import read_peers
from kernel.netlink.socket import Netlink

DESCRIPTION = """\
Follow a packet from a pod, from the node or from beyond it, hop by hop: look its way up as the
kernel does, send real packets, and show where they pass, what translates them, and where they end.
Only the packets and a table of nftables that goes with the command are added to the node."""
EPILOG = """\
examples:
  podwirectl trace shop/cart 10.244.2.7            ICMP echo to a pod of another node
  podwirectl trace shop/cart shop/db:5432          TCP, to a pod of this node
  podwirectl trace shop/cart 8.8.8.8:53/udp        to the outside
  podwirectl trace node 10.244.2.7 --size 1450     whether packets of that size pass
  podwirectl trace outside 192.0.2.11:8080         of a client beyond, to a port of this node
  podwirectl trace outside:198.51.100.7 shop/db    of this client
  podwirectl trace shop/cart 10.244.2.7 --watch    again and again
  podwirectl trace shop/cart 10.244.2.7 --dry-run  send nothing

SRC and DEST are pods of this node, by whatever `podwirectl pods` takes. SRC may be `node` or
`outside`; DEST may be a node's name or any address, an IPv6 address with a port in brackets.
Without a port ICMP echo is sent, with one TCP. Packets to a UDP port that has no service, or one
that keeps quiet, have no answer.

A client beyond the node sends nothing: its packet is given to the kernel as received by the link
that leads to the client, and the answer is seen where it leaves. What lies between client and link
is not tried. Without an ADDRESS the client is 203.0.113.1 or 3fff::1, which nobody has.

exit codes: 0 reached, or refused by the destination itself; 1 dropped, or no answer; 2 wrong usage
"""
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1}
_PAUSE = 1.0  # seconds


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    source = "the pod that sends, `node` or `outside[:ADDRESS]`"
    parser.add_argument("source", metavar="SRC", help=source)
    parser.add_argument("to", metavar="DEST[:PORT][/PROTOCOL]", help="tcp, udp or icmp")
    parser.add_argument(
        "--size",
        type=count(100, 65_000, " bytes"),
        default=0,
        help="bytes of an IP packet, unfragmented",
    )
    parser.add_argument("--dry-run", action="store_true", help="look the way up, send nothing")
    parser.add_argument("--watch", action="store_true", help="repeat until interrupted")
    patience = "seconds to wait for the answer (default: 2)"
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=number(0.01, 60), default=2.0, help=patience
    )
    add_output(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Trace; the exit status."""
    signal.signal(signal.SIGTERM, _end)
    to = parse_target(options.to, _PROTOCOLS)
    to = to._replace(protocol=to.protocol or ("tcp" if to.port else "icmp"))
    check_port(to.port, to.protocol)
    if options.size and to.protocol == "tcp":
        raise Unusable("--size is for icmp and udp: the packet that opens a connection is small")
    with Netlink() as nl:
        try:
            while True:
                trace = _trace(nl, options, to)
                if options.output == "json":
                    print_json(as_json(trace))
                else:
                    print(render(trace))
                if not options.watch:
                    reached = trace.verdict.reached
                    is_blocked = reached is None and any(hop.fault for hop in trace.hops)
                    return FAILED if reached is False or is_blocked else DONE
                print(flush=True)
                time.sleep(_PAUSE)
        except KeyboardInterrupt:
            if options.watch:
                return DONE
            raise


def _trace(nl: Netlink, options: argparse.Namespace, to: Target) -> Trace:
    settings = settings_of(options.config)
    attachments = read_attachments(nl, files_of(options.config).data_dir)
    planned = plan_node(nl, settings) if settings else None
    request = Request(
        find_source(nl, attachments, options.source),
        find_destination(nl, attachments, planned.snapshot if planned else None, to.host),
        _PROTOCOLS[to.protocol],
        to.port,
        options.size,
        options.timeout,
        not options.dry_run,
    )
    health = read_peers(settings.status_file)[0] if settings else {}
    return follow(nl, attachments.found, planned, health, request)


def _end(*_signal: object) -> NoReturn:
    raise SystemExit(FAILED)
