"""`podwirectl peers`: the other nodes, the path to each, and whether it is reached."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from ctl.planning import plan_node, require_settings
from daemon.log import printable
from daemon.model import Desired, Node, Refusal
from daemon.options import Unusable, add_config
from daemon.probes.peers_file import read_peers
from daemon.probes.report import PeerHealth, State
from daemon.status import NoStatus, read_status
from ipam.boot import render_duration
from kernel.describe import state_of
from kernel.model import Entry, FdbEntry, Route
from kernel.netlink.socket import Netlink

DESCRIPTION = "List the other nodes: address, prefixes, the path to their pods, and its state."
EPILOG = """\
examples:
  podwirectl peers                 all of them
  podwirectl peers node-7          one, in full
  podwirectl peers -o json | jq '.[] | select(.state == "failed") | .name'

PATH is `vxlan` with the peer's end of the tunnel, or `direct` with the link. STATE, RTT and LOSS
are of the daemon's probes (LOSS of the last 64); `podwirectl status --help` explains them. FOR is
how long the state has lasted.

No server is asked: nodes of Kubernetes or etcd are those that the daemon received last.

exit codes:
  0  each peer has a path, and none that is probed has failed
  1  a peer is not reached, or a prefix is refused; or the nodes cannot be read, or there is no such
     peer
  2  wrong usage
"""


@dataclass(frozen=True, slots=True)
class ListedPeer:
    """A peer. entries: that lead to it; health: of its connection, None where it is not probed."""

    node: Node
    entries: tuple[Entry, ...]
    refused: tuple[Refusal, ...]
    health: PeerHealth | None

    @property
    def vtep(self) -> FdbEntry | None:
        """Its end of the tunnel."""
        return next((e for e in self.entries if isinstance(e, FdbEntry)), None)

    @property
    def routes(self) -> list[Route]:
        """Those that lead to its prefixes."""
        return [e for e in self.entries if isinstance(e, Route)]

    @property
    def path(self) -> str:
        """vxlan, direct, or empty for none."""
        return "vxlan" if self.vtep else "direct" if self.routes else ""

    @property
    def problems(self) -> list[str]:
        """What is wrong with it."""
        health = self.health
        found = [f"{refusal.prefix} is refused: {refusal.why}" for refusal in self.refused]
        if health and health.state is not State.ESTABLISHED and health.reason:
            found.append(f"{health.reason}: {health.detail}")
        return found


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("node", metavar="NODE", nargs="?", help="one peer (default: all)")
    add_output(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Print them; the exit status."""
    settings = require_settings(options.config)
    with Netlink() as nl:
        planned = plan_node(nl, settings)
    if planned.snapshot is None:
        raise Unusable(planned.source_fault)
    health, age = read_peers(settings.status_file)
    if health and not _is_current(settings.status_file):
        warn(f"no daemon probes: the states are of {render_duration(age)} ago")
    if planned.fault:
        warn(f"this node has no paths to others: {printable(planned.fault)}")
    others = [node for node in planned.snapshot.nodes if node.name != settings.node]
    peers = list_peers(others, planned.desired, health)
    peers = [peer for peer in peers if options.node in (None, peer.node.name)]
    if options.node and not peers:
        raise Unusable(f"no other node of the source is called {options.node!r}")
    if options.output == "json":
        print_json([as_json(peer) for peer in peers])
    elif peers:
        print(render_one(peers[0]) if options.node else render(peers))
    else:
        warn("the source has no other node")
    return FAILED if planned.fault or any(peer.problems for peer in peers) else DONE


def _is_current(path: Path) -> bool:
    try:
        return read_status(path).is_current
    except (NoStatus, OSError):
        return False


def list_peers(
    nodes: Iterable[Node], desired: Desired | None, health: dict[str, PeerHealth]
) -> list[ListedPeer]:
    """These nodes by name. desired: None where nothing leads to them."""
    refused: dict[str, list[Refusal]] = {}
    for refusal in desired.refused if desired else ():
        refused.setdefault(refusal.node, []).append(refusal)
    return [
        ListedPeer(
            node,
            desired.peers.get(node.name, ()) if desired else (),
            tuple(refused.get(node.name, ())),
            health.get(node.name),
        )
        for node in sorted(nodes, key=lambda node: node.name)
    ]


def as_json(peer: ListedPeer) -> dict[str, object]:
    """The shape that docs/operations.md documents."""
    vtep, health = peer.vtep, peer.health
    return {
        "name": peer.node.name,
        "addresses": list(map(str, peer.node.addresses)),
        "podCIDRs": list(map(str, peer.node.pod_cidrs)),
        "path": peer.path or None,
        "vtep": {"address": str(vtep.dst), "mac": vtep.mac} if vtep else None,
        "routes": [
            {"prefix": str(r.dst), "via": str(r.via) if r.via else None, "link": r.link}
            for r in peer.routes
        ],
        "refused": [{"prefix": str(r.prefix), "why": r.why} for r in peer.refused],
        "state": str(health.state) if health else None,
        "reason": str(health.reason) or None if health else None,
        "detail": health.detail or None if health else None,
        "since": render_timestamp(health.since) if health else None,
        "rtt": health.rtt if health else None,
        "pathMTU": health.path_mtu or None if health else None,
        "probes": health.probes if health else None,
        "lost": health.lost if health else None,
    }


_HEADER = ("PEER", "ADDRESS", "PREFIXES", "PATH", "STATE", "RTT", "LOSS", "FOR")


def render(peers: Sequence[ListedPeer]) -> str:
    """The table, and below it what is wrong."""
    lines = [f"!  {p.node.name}: {printable(problem)}" for p in peers for problem in p.problems]
    return "\n".join([table(_HEADER, map(_row, peers)), *([""] if lines else []), *lines])


def _row(peer: ListedPeer) -> tuple[str, ...]:
    health = peer.health
    return (
        peer.node.name,
        _joined(peer.node.addresses),
        _joined(peer.node.pod_cidrs),
        _path(peer),
        str(health.state) if health else "",
        _rtt(health),
        _loss(health),
        _duration(health),
    )


def _joined(values: Iterable[object]) -> str:
    return " ".join(map(str, values))


def _path(peer: ListedPeer) -> str:
    if peer.vtep:
        return f"vxlan {peer.vtep.dst}"
    return f"direct {peer.routes[0].link}" if peer.routes else "none"


def _rtt(health: PeerHealth | None) -> str:
    if health is None or health.rtt is None:
        return ""
    return f"{health.rtt * 1e6:.0f}µs" if health.rtt < 0.001 else f"{health.rtt * 1e3:.1f}ms"


def _loss(health: PeerHealth | None) -> str:
    return f"{health.lost / health.probes:.2%}" if health and health.probes else ""


def _duration(health: PeerHealth | None) -> str:
    return render_age(health.since) if health else ""


def render_one(peer: ListedPeer) -> str:
    """Everything about one."""
    health, vtep = peer.health, peer.vtep
    rows = [
        ("peer", peer.node.name),
        ("addresses", ", ".join(map(str, peer.node.addresses))),
        ("pod CIDRs", ", ".join(map(str, peer.node.pod_cidrs))),
        ("path", _path(peer)),
        *((("VTEP", f"{vtep.dst}, MAC {vtep.mac}"),) if vtep else ()),
        *(("route", f"{r.dst} {state_of(r)}") for r in peer.routes),
        ("state", f"{health.state} for {_duration(health)}" if health else "not probed"),
        ("latency", _rtt(health)),
        ("loss", f"{_loss(health)}: {health.lost} of {health.probes} probes" if health else ""),
        ("path MTU", str(health.path_mtu or "unknown") if health else ""),
        *(("!", problem) for problem in peer.problems),
    ]
    return fields(rows)
