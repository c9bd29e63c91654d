"""`podwirectl plan`: sizes of an address plan, and the present one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from ctl.address_plan import (
    FamilyPlan,
    NoPlan,
    find_overlaps,
    plan_family,
    suggest,
)
from ctl.address_usage import Space, cluster_spaces, node_spaces
from ctl.output import DONE, FAILED, add_output, count, print_json, table
from ctl.planning import plan_node, require_settings
from daemon.config.schema import ENCAPSULATING, Settings
from daemon.log import printable
from daemon.options import Unusable, add_config, settings_of
from daemon.routing.backends.vxlan import OVERHEAD
from daemon.routing.host_state import HostState, read_host_state
from kernel.model import RTPROT_PODWIRE, RTPROT_PODWIRE_PEERS, IPNetwork
from kernel.netlink.socket import Netlink
from kernel.read import read_uplink_and_bridge

DESCRIPTION = """\
Compute the prefixes that a cluster needs, with the room that they leave, and compare them with the
networks of this node. Without --nodes show the present plan, and how full it is."""
EPILOG = """\
examples:
  podwirectl plan --nodes 120 --pods 60                a /26 for each node, a /19 for all
  podwirectl plan --nodes 120 --pods 60 --cluster-cidr 10.244.0.0/16 --cluster-cidr fd00:10:244::/48
  podwirectl plan --nodes 40 --pods 110 --mtu 9000     with the pods' MTU on that uplink
  podwirectl plan                                      the present plan of this node

Of a node's IPv4 prefix three addresses are no pod's: the node's own, the gateway, broadcast. A
second line, `with room`, has twice the pods: freed addresses can rest before the next pod has them,
and new pods start before old ones have ended.

exit codes: 0 the plan fits, and nothing overlaps; 1 it does not, or something overlaps, or is
nearly full; 2 wrong usage
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    many = count(1, 1 << 24)
    parser.add_argument("--nodes", type=many, metavar="N", help="nodes of the cluster")
    parser.add_argument("--pods", type=many, metavar="N", default=110, help="of a node (110)")
    words = "the cluster's prefix, one of a family (default: the smallest that does)"
    parser.add_argument("--cluster-cidr", type=ip_network, action="append", default=[],
                        metavar="PREFIX", help=words)  # fmt: skip
    words = "of the uplink, in bytes (default: that of this node's default route)"
    parser.add_argument("--mtu", type=many, metavar="BYTES", help=words)
    add_output(parser)
    add_config(parser)


def run(options: argparse.Namespace) -> int:
    """Print the plan; the exit status."""
    if options.nodes is None:
        return _show_present(options)
    with Netlink() as nl:
        host = read_host_state(nl)
        mtu = options.mtu or read_uplink_and_bridge(nl, uplink=True, bridge="")[0] or 1500
    settings = settings_of(options.config)
    networks = foreign_networks(host)
    try:
        lines = list(_plans(options, networks))
    except NoPlan as error:
        raise Unusable(str(error)) from error
    mtus = _pod_mtus(settings, mtu)
    problems = [problem for line in lines for problem in line.problems]
    if options.output == "json":
        print_json(_as_json(options, lines, mtu, mtus, problems))
    else:
        print(_render(options, lines, mtu, mtus))
    return FAILED if problems else DONE


@dataclass(frozen=True, slots=True)
class Line:
    """A plan of one family. cidr: the cluster's prefix, given or suggested."""

    plan: FamilyPlan
    roomy: FamilyPlan | None
    cidr: str
    problems: tuple[str, ...]


def _plans(
    options: argparse.Namespace, networks: Sequence[tuple[IPNetwork, str]]
) -> Iterator[Line]:
    given = {prefix.version: prefix for prefix in options.cluster_cidr}
    if len(given) < len(options.cluster_cidr):
        raise NoPlan("two prefixes of one family: give one --cluster-cidr of each")
    for version in (4, 6):
        yield _plan(version, options, given.get(version), networks)


def _plan(
    version: int,
    options: argparse.Namespace,
    cidr: IPNetwork | None,
    networks: Sequence[tuple[IPNetwork, str]],
) -> Line:
    plan = plan_family(version, options.nodes, options.pods, cidr.prefixlen if cidr else 0)
    problems = []
    if plan.nodes_max < options.nodes:
        need = plan_family(version, options.nodes, options.pods).cluster_length
        problems.append(
            f"{cidr} has prefixes for {plan.nodes_max} nodes, not {options.nodes}: a /{need} has"
        )
    overlaps = find_overlaps(cidr, networks) if cidr else []
    problems += [f"{cidr} overlaps {network} of this node" for network in overlaps]
    try:
        roomy = plan_family(version, options.nodes, 2 * options.pods) if version == 4 else None
    except NoPlan:
        roomy = None
    chosen = str(cidr) if cidr else suggest(version, plan.cluster_length, networks)
    return Line(plan, roomy, chosen, tuple(problems))


def foreign_networks(host: HostState) -> list[tuple[IPNetwork, str]]:
    """The networks and routes of the node that are not podwire's, each with its link."""
    marked = {link.name for link in host.links if (link.alias or "").startswith("podwire")}
    bridges = {link.port.bridge for link in host.links if link.port and link.name in marked}
    own, ours = marked | bridges, (RTPROT_PODWIRE, RTPROT_PODWIRE_PEERS)
    found = [(a.address.network, a.link) for a in host.addresses]
    found += [(r.dst, r.link) for r in host.routes if r.protocol not in ours]
    return [(network, link) for network, link in found if link not in own and network.prefixlen]


def _pod_mtus(settings: Settings | None, mtu: int) -> dict[str, int]:
    """The pods' MTU for each way of reaching other nodes."""
    backend = settings.backend if settings else "vxlan"
    if backend not in ENCAPSULATING:
        return {backend: mtu}
    return {f"{backend} over IPv{version}": mtu - size for version, size in OVERHEAD.items()}


def _as_json(
    options: argparse.Namespace,
    lines: Sequence[Line],
    mtu: int,
    mtus: dict[str, int],
    problems: Sequence[str],
) -> dict[str, object]:
    return {
        "nodes": options.nodes,
        "podsPerNode": options.pods,
        "families": [
            {
                "version": line.plan.version,
                "nodePrefixLength": line.plan.node_length,
                "clusterPrefixLength": line.plan.cluster_length,
                "podsPerNodeMax": line.plan.pods_max,
                "nodesMax": line.plan.nodes_max,
                "clusterCIDR": line.cidr or None,
                "problems": list(line.problems),
            }
            for line in lines
        ],
        "uplinkMTU": mtu,
        "podMTU": mtus,
        "problems": list(problems),
    }


def _render(
    options: argparse.Namespace, lines: Sequence[Line], mtu: int, mtus: dict[str, int]
) -> str:
    header = ("", "A NODE", "THE CLUSTER", "EXAMPLE", "PODS OF A NODE", "NODES", "ROOM FOR")
    rows = []
    for line in lines:
        rows.append(_row(f"IPv{line.plan.version}", line.plan, line.cidr, options))
        if line.roomy:
            rows.append(_row("with room", line.roomy, "", options))
    text = table(header, rows)
    sizes = ", ".join(f"{size} ({name})" for name, size in mtus.items())
    problems = [f"!  {problem}" for line in lines for problem in line.problems]
    return "\n".join([text, "", f"pods' MTU: {sizes} on an uplink of {mtu}", *problems])


def _row(name: str, plan: FamilyPlan, cidr: str, options: argparse.Namespace) -> tuple[str, ...]:
    nodes, pods = plan.nodes_max - options.nodes, plan.pods_max - options.pods
    # Nobody counts the addresses of a /64.
    many = plan.pods_max > 1 << 32
    room = f"{nodes} more nodes" if many else f"{nodes} more nodes, {pods} more pods on each"
    return (
        name,
        f"/{plan.node_length}",
        f"/{plan.cluster_length}",
        cidr,
        "any number" if many else str(plan.pods_max),
        str(plan.nodes_max),
        room if nodes >= 0 else "too small",
    )


def _show_present(options: argparse.Namespace) -> int:
    settings = require_settings(options.config)
    with Netlink() as nl:
        planned = plan_node(nl, settings)
    if planned.snapshot is None:
        raise Unusable(planned.source_fault)
    nodes = planned.snapshot.nodes
    me = next((node for node in nodes if node.name == settings.node), None)
    own = me.pod_cidrs if me else ()
    cluster = planned.snapshot.cluster_cidrs or settings.source.cluster_cidrs
    spaces = [*node_spaces(settings, own), *cluster_spaces(cluster, nodes, own)]
    networks = foreign_networks(planned.host)
    problems = [f"{p} overlaps {n} of this node" for p in own for n in find_overlaps(p, networks)]
    problems += [
        f"{space.name} is nearly full: {space.used} of {space.size} {space.what} are in use"
        for space in spaces
        if space.is_full
    ]
    problems += [planned.fault] if planned.fault else []
    if me is None:
        problems.append(f"the source has no node {settings.node}, which is this one")
    mtu = planned.desired.pod_mtu if planned.desired else None
    if options.output == "json":
        print_json(_present_as_json(settings, len(nodes), spaces, mtu, problems))
    else:
        rows = [(s.name, f"{s.used} of {s.size} {s.what}", s.note) for s in spaces]
        print(f"node {settings.node}, {len(nodes)} nodes, pods' MTU {mtu or 'unknown'}\n")
        print(table(("PREFIX", "IN USE", "NOTE"), rows))
        for problem in problems:
            print(f"!  {printable(problem)}")
    return FAILED if problems else DONE


def _present_as_json(
    settings: Settings,
    nodes: int,
    spaces: Sequence[Space],
    mtu: int | None,
    problems: Sequence[str],
) -> dict[str, object]:
    return {
        "node": settings.node,
        "nodes": nodes,
        "podMTU": mtu,
        "spaces": [
            {"prefix": s.name, "what": s.what, "used": s.used, "size": s.size} for s in spaces
        ],
        "problems": list(problems),
    }
