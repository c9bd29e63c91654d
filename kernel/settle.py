"""Waiting for what the kernel finishes by itself after it has acknowledged a new pair.

A carrier reaches the link's queue, its bridge port and its IPv6 by linkwatch, at once or up to a
second later (net/core/link_watch.c); an IPv6 address gets its solicited-node group and its local
route by addrconf_dad_work (net/ipv6/addrconf.c). What arrives before is dropped, and nobody sends
it again where the sender has the address in its neighbour cache.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable

from kernel import rtnl
from kernel.model import IPAddress, IPInterface, Plan, Space, Sysctl
from kernel.netlink import Netlink

_PAUSE_SECONDS = 0.0005
_DEADLINE_SECONDS = 1.5
_GONE = frozenset({errno.ENODEV})


def settle_pod(nl: Netlink, want: Space) -> None:
    """Wait until the pod's link can receive, and answers for its IPv6 addresses.

    Only for a limited time, for a link may be kept down from outside.
    """
    link = want.links[0]
    trusted = Sysctl(f"net/ipv6/conf/{link.name}/accept_dad", "0", required=False) in want.sysctls
    if link.up:
        _settle(nl, link.name, _six(a.address for a in want.addresses), link_local=trusted)


def settle_node(nl: Netlink, plan: Plan) -> None:
    """Wait until the node's end and its bridge forward to the pod, which has its link up."""
    if not plan.pod.links[0].up:
        return
    # The kernel asks for the neighbours of packets that it forwards from its link-local address
    # (net/ipv6/ndisc.c, ndisc_solicit), and asks again after a second where it has none yet.
    forwards = bool(_six(a.address for a in plan.pod.addresses))
    own = _six(a.address for a in plan.node.addresses)
    _settle(nl, plan.node.links[0].name, own, link_local=forwards and not plan.bridge)
    # The port first: its carrier is the bridge's.
    if plan.bridge:
        _settle(nl, plan.bridge.name, _six(plan.bridge.gateways), link_local=forwards)


def _six(addresses: Iterable[IPInterface]) -> frozenset[IPAddress]:
    return frozenset(address.ip for address in addresses if address.version == 6)


def _settle(
    nl: Netlink, name: str, served: frozenset[IPAddress], *, link_local: bool = False
) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not _is_settled(nl, name, served, link_local) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)


def _is_settled(nl: Netlink, name: str, served: frozenset[IPAddress], link_local: bool) -> bool:
    # Asking for one link by name makes the kernel do its overdue part first (linkwatch_sync_dev in
    # rtnl_getlink, since 6.8).
    found = nl.run([rtnl.get_link(name)], tolerate=_GONE)[0].objects
    if not found:
        return True
    index, works = rtnl.read_operational(found[0])
    if not works:
        return False
    if link_local and any(map(rtnl.is_on_trial, nl.dump(rtnl.list_addresses(index)))):
        return False
    if not served:
        return True
    routes = nl.dump(rtnl.list_local_routes(6, index))
    return served <= {rtnl.read_destination(route) for route in routes}
