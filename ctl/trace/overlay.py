"""The hops of a packet to a pod of another node: device, neighbour, FDB, underlay, that node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ctl.trace.hop import Hop
from ctl.trace.neighbours import find_neighbour, find_underlay_path
from daemon.model import Desired
from daemon.probes.report import PeerHealth
from kernel.model import FdbEntry, IPAddress
from kernel.netlink.neighbours import list_fdb, parse_entry
from kernel.netlink.socket import Netlink
from kernel.paths import PacketPath
from kernel.read import read_link


def overlay_hops(
    nl: Netlink,
    path: PacketPath,
    to: IPAddress,
    desired: Desired,
    health: Mapping[str, PeerHealth],
) -> Iterator[tuple[Hop, str]]:
    """Each with the link where its packets are counted, empty for none. Raises KernelError."""
    if desired.device is None:
        return
    name, target = desired.device.name, path.via or to
    link = read_link(nl, name)
    if link is None:
        yield Hop(f"overlay {name}", "", f"{name} is gone"), name
        return
    entry = find_neighbour(nl, link, target)
    mac = entry.mac if entry else ""
    vteps = _find_vteps(nl, link.index, mac) if mac else []
    fault = "" if link.up else f"{name} is down"
    fault = fault or ("" if mac else f"{target} has no neighbour entry on {name}")
    fault = fault or ("" if vteps else f"{mac} has no FDB entry on {name}")
    vtep = vteps[0] if vteps else None
    what = f"neighbour {target} is {mac or '?'}, FDB leads to {vtep or '?'}"
    yield Hop(f"overlay {name}", what, fault), name
    if vtep is None:
        return
    node = next((n for n in desired.nodes.values() if vtep in n.addresses), None)
    owner = next((n for n in desired.nodes.values() if any(to in p for p in n.pod_cidrs)), None)
    own = desired.underlay if desired.underlay.version == vtep.version else None
    under, fault, hint = find_underlay_path(nl, vtep, own, name)
    if owner and node is not owner:
        fault = f"{to} is of {owner.name}, but the FDB leads to {vtep}"
    what = f"VXLAN to {node.name if node else 'an unknown node'} ({vtep}), {under}"
    uplink = under.link or desired.uplink
    yield Hop(f"uplink {uplink}", what, fault, hint=hint), uplink
    if node is not None:
        yield _remote_hop(node.name, to, health.get(node.name)), ""


def _remote_hop(name: str, to: IPAddress, health: PeerHealth | None) -> Hop:
    """The other node, whose own state is known only there."""
    what = "not probed"
    if health is not None:
        detail = f": {health.detail}" if health.detail else ""
        what = f"probes: {health.state}{detail}"
    return Hop(name, what, advice=f"run `podwirectl trace node {to}` on {name}")


def _find_vteps(nl: Netlink, index: int, mac: str) -> list[IPAddress]:
    entries = (parse_entry(message) for message in nl.dump(list_fdb(index)))
    return [
        e.dst for at, e, _p in entries if at == index and isinstance(e, FdbEntry) and e.mac == mac
    ]
