"""The last known state of a cluster on disk: a daemon that starts without its API routes by it.

One JSON document, a node in each line. It is the daemon's own, and is checked like any other input
nevertheless: a damaged file is not used.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daemon.delayed_file import DelayedFile
from daemon.files import read_regular
from daemon.log import Log
from daemon.model import Node, parse_node_address, parse_node_name, parse_pod_cidr, parse_prefix
from kernel.model import IPNetwork

FORMAT = 1
FILE_MAX = 64 << 20  # bytes
SOON = 0.2
"""Seconds from a change to its write, at least."""
GAP = 10.0
"""Seconds from changed nodes to their write, at most."""
POSITION_GAP = 600.0
"""The same where only the position moved on: an older one costs the API a little more."""


@dataclass(frozen=True, slots=True)
class LastKnown:
    """The last known state of a cluster.

    identity: which cluster of which API, as the client names it. position: from where the client
    can go on; empty = it must read everything. saved: seconds of the wall clock.
    """

    identity: str
    nodes: tuple[Node, ...]
    cluster_cidrs: tuple[IPNetwork, ...]
    position: str = ""
    saved: float = 0.0


class Unreadable(Exception):
    """The file is not one that this daemon wrote for this source; the message says why."""


def load(path: Path, identity: str | None = None) -> LastKnown | None:
    """The state of that source (None: of any); None where there is no file. Raises Unreadable."""
    try:
        data = read_regular(path, FILE_MAX)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unreadable(f"could not be read: {error.strerror}") from error
    try:
        return _parse(json.loads(data), identity)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(f"is damaged: {str(error)[:200]}") from error


def _parse(root: Any, identity: str | None) -> LastKnown:
    if root["format"] != FORMAT:
        raise Unreadable(f"has format {root['format']!r}, not {FORMAT}")
    if identity not in (None, root["identity"]):
        raise Unreadable(f"is of another source: {str(root['identity'])[:200]}")
    nodes = tuple(map(parse_node, root["nodes"]))
    if len({node.name for node in nodes}) < len(nodes):
        raise ValueError("two nodes have one name")
    cidrs = tuple(map(parse_prefix, root["clusterCIDRs"]))
    return LastKnown(
        str(root["identity"]), nodes, cidrs, str(root["position"]), float(root["saved"])
    )


def show_node(node: Node) -> list[Any]:
    """A node, for JSON."""
    return [node.name, list(map(str, node.addresses)), list(map(str, node.pod_cidrs))]


def parse_node(entry: Any) -> Node:
    """What `show_node` made. Raises ValueError, TypeError, AttributeError."""
    name, addresses, cidrs = entry
    return Node(
        parse_node_name(name),
        tuple(map(parse_node_address, addresses)),
        tuple(map(parse_pod_cidr, cidrs)),
    )


def render(known: LastKnown) -> bytes:
    """The file's content."""
    head = {
        "format": FORMAT,
        "identity": known.identity,
        "saved": round(known.saved, 3),
        "position": known.position,
        "clusterCIDRs": list(map(str, known.cluster_cidrs)),
    }
    lines = ",\n".join(json.dumps(show_node(node)) for node in known.nodes)
    return f'{json.dumps(head)[:-1]}, "nodes": [\n{lines}\n]}}\n'.encode()


def open_cache(path: Path, log: Log) -> DelayedFile[LastKnown]:
    """The file, to be written some time after a change, and at the end."""
    what = "the cluster's last known state"
    return DelayedFile(path, what, _render_now, soon=SOON, most=GAP, log=log)


def _render_now(known: LastKnown) -> bytes:
    return render(replace(known, saved=time.time()))
