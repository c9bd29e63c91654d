"""`podwirectl pods`: the pods of this node, and which of them a link, an address or a path is."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ctl.attachments import (
    Attachment,
    UnknownName,
    describe_unknown,
    find_attachments,
    read_attachments,
)
from ctl.output import (
    DONE,
    FAILED,
    add_output,
    fields,
    print_json,
    render_age,
    render_timestamp,
    table,
    warn,
)
from ctl.pod_namespace import namespace_number
from daemon.log import printable
from daemon.options import add_config, files_of
from daemon.routing.runtime_cache import RESULTS
from kernel.netlink.socket import Netlink

DESCRIPTION = """\
List the pods of this node: container, links of both ends, addresses, traffic; or only those that
WHAT names."""
EPILOG = """\
examples:
  podwirectl pods                         all of them
  podwirectl pods shop/cart-7d4f          one pod, in full
  podwirectl pods 10.244.7.12             which pod has this address?
  podwirectl pods pw1a2b3c4d5e6           ... is behind this link of the node?
  podwirectl pods /proc/4711/ns/net       ... does this process run in?
  podwirectl pods -o json | jq '.[] | select(.problems != [])'

WHAT is a pod (namespace/name, or its name), a container ID or its first 4 characters or more, an
address, a MAC address, the node's link of a pod, or a network namespace (a path, its name, or
net:[4026532000] as `readlink /proc/PID/ns/net` shows it).

Everything is read from podwire's store and the kernel; the daemon need not run. SENT and RECEIVED
are the pod's, counted by the node's end of its link. Pods that another plugin wired are listed from
the runtime's cache (/var/lib/cni/results).

exit codes: 0 done; 1 nothing has that name, or not everything could be read; 2 wrong usage
"""
_SHOWN_OF_ID = 13
_GONE = "the node's end of its link is gone, or is another's: recreate the pod"
_UNWIRED = "another plugin wired it: recreate the pod, and podwire does"


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    words = "pod, container ID, address, MAC, link, or network namespace (default: all pods)"
    parser.add_argument("what", metavar="WHAT", nargs="?", default="", help=words)
    add_output(parser)
    add_config(parser)
    words = f"the runtime's cache of results (default: {RESULTS})"
    parser.add_argument("--results", metavar="DIR", type=Path, default=RESULTS, help=words)


def run(options: argparse.Namespace) -> int:
    """Print them; the exit status."""
    data_dir = files_of(options.config).data_dir
    with Netlink() as nl:
        known = read_attachments(nl, data_dir, options.results)
        found = find_attachments(nl, known.found, options.what) if options.what else known.found
    for fault in known.faults:
        warn(printable(fault))
    if options.what and not found:
        raise UnknownName(describe_unknown(known, options.what))
    if options.output == "json":
        print_json([as_json(each) for each in found])
    elif found:
        print(render_one(found[0]) if options.what and len(found) == 1 else render(found))
    else:
        warn("there are no pods on this node")
    return FAILED if known.faults else DONE


def problems_of(each: Attachment) -> list[str]:
    """What is wrong with it at the first look, and what to do."""
    if each.plugin:
        return [_UNWIRED]
    problems = []
    if each.end is None:
        problems.append(_GONE)
    elif not each.end.link.up:
        problems.append(f"link {each.host} is down: `ip link set {each.host} up`")
    if each.folder is None:
        problems.append("no store has it: it was read from its link's alias")
    return problems


def as_json(each: Attachment) -> dict[str, object]:
    """The shape that docs/operations.md documents."""
    end = each.end
    return {
        "pod": each.pod or None,
        "containerID": each.owner.container_id,
        "network": each.owner.network or None,
        "ifname": each.owner.ifname or None,
        "addresses": list(map(str, each.addresses)),
        "mac": each.pod_mac or None,
        "netns": each.netns or None,
        "netnsInode": namespace_number(each.netns) if each.netns else None,
        "hostLink": each.host or None,
        "hostMAC": end.link.mac if end else None,
        "bridge": each.bridge or None,
        "mtu": end.link.mtu if end else None,
        "up": end.link.up if end else None,
        "since": render_timestamp(each.since) if each.since is not None else None,
        "traffic": _traffic(each),
        "wiredBy": each.plugin or "podwire",
        "problems": problems_of(each),
    }


def _traffic(each: Attachment) -> dict[str, int] | None:
    """What the pod sent is what the node's end received."""
    if each.end is None:
        return None
    found = each.end.counters
    return {
        "sentBytes": found.rx_bytes,
        "sentPackets": found.rx_packets,
        "sentDropped": found.rx_dropped,
        "receivedBytes": found.tx_bytes,
        "receivedPackets": found.tx_packets,
        "receivedDropped": found.tx_dropped,
    }


_HEADER = (
    *("POD", "CONTAINER", "INTERFACE", "LINK", "BRIDGE", "ADDRESSES"),
    *("SENT", "RECEIVED", "FOR", "NOTE"),
)


def render(found: Sequence[Attachment]) -> str:
    """The table, and below it what is wrong."""
    lines = [
        f"!  {printable(f'{each.title} {each.owner.ifname}: {problem}')}"
        for each in found
        for problem in problems_of(each)
    ]
    return "\n".join([table(_HEADER, map(_row, found)), *([""] if lines else []), *lines])


def _row(each: Attachment) -> tuple[str, ...]:
    counters = each.end.counters if each.end else None
    return (
        each.pod,
        each.owner.container_id[:_SHOWN_OF_ID],
        each.owner.ifname,
        each.host,
        each.bridge,
        " ".join(map(str, each.ips)),
        render_bytes(counters.rx_bytes) if counters else "",
        render_bytes(counters.tx_bytes) if counters else "",
        _age(each),
        f"by {each.plugin}" if each.plugin else "!" if problems_of(each) else "",
    )


def _age(each: Attachment) -> str:
    return "" if each.since is None else render_age(each.since)


def render_bytes(count: float) -> str:
    """With a binary unit: 3.4MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f}{unit}" if unit == "B" else f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.1f}TiB"


def render_one(each: Attachment) -> str:
    """Everything about one."""
    found = as_json(each)
    rows = [
        ("pod", each.pod),
        ("container", each.owner.container_id),
        ("network", each.owner.network),
        ("interface", _pair(each.owner.ifname, each.pod_mac)),
        ("namespace", _pair(each.netns, found["netnsInode"], "net:[{}]")),
        ("node's link", _pair(each.host, found["hostMAC"])),
        ("bridge", each.bridge or ("none: routed" if each.record.complete else "")),
        ("addresses", ", ".join(map(str, each.addresses))),
        ("MTU", found["mtu"]),
        *_traffic_rows(each),
        ("since", _pair(found["since"], _age(each), "{} ago")),
        ("wired by", found["wiredBy"]),
        *(("!", problem) for problem in problems_of(each)),
    ]
    return fields(rows, 13)


def _pair(first: object, second: object, style: str = "{}") -> str:
    return f"{first or '-'} ({style.format(second)})" if second else str(first or "")


def _traffic_rows(each: Attachment) -> list[tuple[str, object]]:
    if each.end is None:
        return []
    c = each.end.counters
    return [
        ("sent", f"{render_bytes(c.rx_bytes)}, {c.rx_packets} packets, {c.rx_dropped} dropped"),
        ("received", f"{render_bytes(c.tx_bytes)}, {c.tx_packets} packets, {c.tx_dropped} dropped"),
    ]
