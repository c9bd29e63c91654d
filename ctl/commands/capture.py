"""`podwirectl capture`: the frames of a pod at all links of its way, in one file."""

from __future__ import annotations

import argparse
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NoReturn

from ctl.attachments import Attachment, Attachments, find_pod, read_attachments
from ctl.capture.expression import Test, parse_filter
from ctl.capture.record import Limits, Place, Recorded, Recorder, Show
from ctl.output import DONE, create_private, warn
from ctl.planning import Planned, plan_node
from ctl.pod_namespace import open_pod_namespace
from daemon.log import printable
from daemon.options import Unusable, add_config, files_of, settings_of
from kernel.model import IPAddress
from kernel.netlink.socket import Netlink
from kernel.packet_socket import Frame
from kernel.packets import VXLAN_PORT, Packet, describe_flags, describe_icmp
from kernel.read import read_link

DESCRIPTION = """\
Capture what a pod sends and receives at all links of its way at once: in the pod, at the node's end
of its link, on the bridge, on the overlay device and on the uplink. Each packet is shown in a line,
what VXLAN carries decoded."""
EPILOG = """\
examples:
  podwirectl capture shop/cart                              30 seconds, shown
  podwirectl capture shop/cart port 53 and udp              DNS alone
  podwirectl capture shop/cart -o cart.pcapng --for 5m      into a file for Wireshark as well
  podwirectl capture node arp or icmp                       the node's links, all pods
  ssh node podwirectl capture shop/cart -o - | wireshark -k -i -

filters: host ADDRESS (or a prefix), port NUMBER, tcp, udp, icmp, arp, each after a `not` if need
be, joined with `and` and `or`; `and` binds stronger. One that fits what VXLAN carries is enough.
On links that others use, too, the pod's addresses are selected. On the uplink a masqueraded packet
has the node's address: it is taken where the filter fits it.

exit codes: 0 captured, also when interrupted; 1 it could not be done; 2 wrong usage
"""
NODE = "node"
_TIMES = {"s": 1, "m": 60, "h": 3600, "": 1}
_SIZES = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("what", metavar="POD", help="a pod of this node, or `node`")
    parser.add_argument("filter", metavar="FILTER", nargs="*", help="which packets (default: all)")
    parser.add_argument("-o", "--output", metavar="FILE", help="a pcapng file; - for stdout")
    parser.add_argument("--for", dest="seconds", metavar="TIME", type=_time, default=30.0,
                        help="30s, 5m, 1h (default: 30s)")  # fmt: skip
    parser.add_argument("--max-bytes", metavar="SIZE", type=_size, default=64 << 20,
                        help="of the file, such as 500k, 64M (default: 64M)")  # fmt: skip
    parser.add_argument("--snap", metavar="BYTES", type=_size, default=1 << 18,
                        help="bytes kept of each frame (default: all)")  # fmt: skip
    parser.add_argument("-q", "--quiet", action="store_true", help="show no packets")
    add_config(parser)


def _time(text: str) -> float:
    return _scaled(text, _TIMES)


def _size(text: str) -> int:
    return int(_scaled(text, _SIZES))


def _scaled(text: str, units: Mapping[str, int]) -> float:
    found = re.fullmatch(r"(\d{1,12})([a-zA-Z]?)", text)
    if found is None or found[2] not in units or not int(found[1]):
        letters = ", ".join(filter(None, units))
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0 with one of {letters}")
    return float(int(found[1]) * units[found[2]])


def run(options: argparse.Namespace) -> int:
    """Capture; the exit status."""
    signal.signal(signal.SIGTERM, _interrupt)
    wanted = parse_filter(options.filter)
    settings = settings_of(options.config)
    with Netlink() as nl, ExitStack() as stack:
        attachments = read_attachments(nl, files_of(options.config).data_dir)
        planned = plan_node(nl, settings) if settings else None
        places = _find_places(nl, options, attachments, planned, wanted, stack)
        file = _open(options.output, stack)
        stream = sys.stderr if options.output == "-" else sys.stdout
        show = None if options.quiet else _shown(_names(attachments, planned), stream)
        limits = Limits(options.seconds, options.max_bytes, options.snap)
        port = settings.vxlan.port if settings else VXLAN_PORT
        recorded = Recorder(places, limits, file, show, port).run()
    _report(places, recorded, options.output)
    return DONE


def _interrupt(*_signal: object) -> NoReturn:
    raise KeyboardInterrupt


def _open(output: str | None, stack: ExitStack) -> IO[bytes] | None:
    if output is None:
        return None
    if output == "-":
        if sys.stdout.isatty():
            raise Unusable("-o - is for a pipe: stdout is a terminal")
        return stack.enter_context(open(os.dup(sys.stdout.fileno()), "wb", buffering=0))
    return stack.enter_context(_create(Path(output)))


def _create(path: Path) -> IO[bytes]:
    """A file for what packets carry, in place of an older one, or a pipe (mkfifo) that is there.

    An older file may be open elsewhere, and readable by others: nothing is written to it.
    """
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if stat.S_ISFIFO(mode):
            return open(os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "wb")
        if not stat.S_ISREG(mode):
            why = "name a new file, or give `-o -` and redirect stdout"
            raise Unusable(f"{path} is neither a regular file nor a pipe: {why}")
        path.unlink()
    return create_private(path)


def _shown(names: Mapping[IPAddress, str], stream: IO[str]) -> Show:
    """Prints a line for each packet, with the names of pods and nodes."""

    def show(place: Place, frame: Frame, packet: Packet) -> None:
        way = "out" if frame.outgoing else "in"
        text = printable(_summarise(packet, names))
        line = f"{_render_time(frame.time)}  {place.link:<15}  {way:<3}  {text}"
        print(line, file=stream, flush=True)

    return show


def _summarise(packet: Packet, names: Mapping[IPAddress, str]) -> str:
    """What it is, from whom to whom. names: of pods and nodes by address."""
    ends = f"{_title(packet.source, names)} > {_title(packet.to, names)}"
    if packet.inner:
        return f"{ends}: VXLAN {packet.vni}: {_summarise(packet.inner, names)}"
    return f"{ends}: {_describe(packet)}"


def _title(address: IPAddress, names: Mapping[IPAddress, str]) -> str:
    return f"{names[address]} ({address})" if address in names else str(address)


def _describe(packet: Packet) -> str:
    ports = "{} > {}".format(*packet.ports) if packet.ports else ""
    if packet.name == "tcp" and packet.ports:
        return f"tcp {ports} [{describe_flags(packet)}] {len(packet.payload)} bytes"
    if packet.ports:
        return f"{packet.name} {ports} {len(packet.payload)} bytes"
    return f"{packet.name} {describe_icmp(packet)}" if packet.kind else packet.name


def _render_time(time: int) -> str:
    """The time of day in UTC, from ns since 1970."""
    moment = datetime.fromtimestamp(time // 1_000_000_000, UTC)
    return f"{moment:%H:%M:%S}.{time % 1_000_000_000 // 1000:06d}"


def _names(attachments: Attachments, planned: Planned | None) -> dict[IPAddress, str]:
    nodes = planned.snapshot.nodes if planned and planned.snapshot else ()
    found = {address: node.name for node in nodes for address in node.addresses}
    return found | {ip: each.title for each in attachments.found if each.end for ip in each.ips}


def _find_places(
    nl: Netlink,
    options: argparse.Namespace,
    attachments: Attachments,
    planned: Planned | None,
    wanted: Test,
    stack: ExitStack,
) -> list[Place]:
    if options.what == NODE:
        found = list(_node_places(attachments, planned, wanted, bool(options.filter)))
    else:
        pod = find_pod(nl, attachments, options.what)[0]
        namespace = stack.enter_context(open_pod_namespace(nl, pod))
        inner = Place(pod.owner.ifname, f"{pod.title}, in the pod", wanted, namespace)
        found = [inner, *_shared_places(pod, planned, wanted, bool(options.filter))]
    present = [p for p in found if p.namespace or read_link(nl, p.link)]
    if not present:
        raise Unusable("this node has no link to capture at: there is no bridge, overlay or plan")
    return present


def _of(addresses: frozenset[IPAddress], wanted: Test) -> Test:
    """Packets that are wanted, and are from or to these addresses."""
    return lambda packet: (
        any(end in addresses for layer in packet.layers for end in (layer.source, layer.to))
        and wanted(packet)
    )


def _shared_places(
    pod: Attachment, planned: Planned | None, wanted: Test, is_filtered: bool
) -> Iterator[Place]:
    mine = _of(frozenset(pod.ips), wanted)
    yield Place(pod.host, f"the node's end of {pod.title}", wanted)
    if pod.bridge:
        yield Place(pod.bridge, "bridge", mine)
    desired = planned.desired if planned else None
    if desired and desired.device:
        yield Place(desired.device.name, "overlay", mine)
    if desired:
        yield Place(desired.uplink, "uplink", wanted if is_filtered else mine)


def _node_places(
    attachments: Attachments, planned: Planned | None, wanted: Test, is_filtered: bool
) -> Iterator[Place]:
    for bridge in sorted({each.bridge for each in attachments.found if each.bridge}):
        yield Place(bridge, "bridge", wanted)
    for each in attachments.found:
        if each.end and not each.bridge:
            yield Place(each.host, f"the node's end of {each.title}", wanted)
    desired = planned.desired if planned else None
    if desired and desired.device:
        yield Place(desired.device.name, "overlay", wanted)
    if desired:
        # Without a filter what pods send: all else would show this command's own terminal, too.
        prefixes = (*desired.cluster, *desired.pod_cidrs)

        def of_pods(packet: Packet) -> bool:
            ends = (end for layer in packet.layers for end in (layer.source, layer.to))
            return any(end in prefix for end in ends for prefix in prefixes)

        yield Place(desired.uplink, "uplink", wanted if is_filtered else of_pods)


def _report(places: list[Place], recorded: Recorded, output: str | None) -> None:
    """How much there is, and what is missing, on stderr."""
    counts = zip(places, recorded.frames, strict=True)
    where = f" in {output}" if output and output != "-" else ""
    warn(f"{', '.join(f'{place.link} {count}' for place, count in counts)} frames{where}")
    for place, dropped in zip(places, recorded.dropped, strict=True):
        if dropped:
            warn(
                f"{dropped} frames of {place.link} came too fast and are missing: narrow the filter"
            )
    if recorded.full:
        warn("the file has reached its size: --max-bytes allows more")
