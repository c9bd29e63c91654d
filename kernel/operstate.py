"""Waiting for what the kernel finishes by itself after it has acknowledged a new pair.

A carrier reaches the link's queue, its bridge port and its IPv6 by linkwatch, at once or up to a
second later (net/core/link_watch.c); an IPv6 address gets its solicited-node group and its local
route by addrconf_dad_work (net/ipv6/addrconf.c). What arrives before is dropped, and is not
sent again where the sender has the address in its neighbour cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kernel.errors import KernelError
from kernel.model import IPAddress, IPInterface, Plan, Space, Sysctl
from kernel.netlink import links, routes
from kernel.netlink.codec import Message
from kernel.netlink.socket import Netlink

_PAUSE_SECONDS = 0.0005
_DEADLINE_SECONDS = 1.5
_DETECTION_PAUSE_SECONDS = 0.02
# The kernel begins within a second, and waits one for an answer (net/ipv6/addrconf.c).
_DETECTION_SECONDS = 5.0

Pause = Callable[[float], None]
"""Sleeps for some seconds; the caller may have to give something back meanwhile."""


def wait_for_pod(nl: Netlink, desired: Space, now: Message | None, pause: Pause) -> None:
    """Wait until the pod's link can receive, and answers for its IPv6 addresses.

    Only for a limited time, for a link may be kept down from outside. now: the link, as it was
    found after it had come up.
    """
    name = desired.links[0].name
    trusted = Sysctl(f"net/ipv6/conf/{name}/accept_dad", "0", required=False) in desired.sysctls
    link = _Awaited(name, _six(a.address for a in desired.addresses), trusted)
    if desired.links[0].up and not (now and _is_ready(nl, link, now)):
        _wait(nl, [link], pause, _DEADLINE_SECONDS)


def wait_for_detection(nl: Netlink, name: str, index: int, pause: Pause) -> None:
    """Wait until no neighbour has said that it has an address of the link.

    Raises KernelError for one that a neighbour has, and where the kernel's test does not end.
    """
    deadline = time.monotonic() + _DETECTION_SECONDS
    while True:
        found = nl.dump(links.list_addresses(index))
        taken = next(filter(links.is_duplicate, found), None)
        if taken:
            hint = "a neighbour has it: duplicate address detection failed"
            raise KernelError("use address", _in_link(taken, name), 0, hint)
        tested = next(filter(links.is_tentative, found), None)
        if tested is None:
            return
        if time.monotonic() >= deadline:
            hint = f"it is still being tested for duplicates after {_DETECTION_SECONDS:.0f} s"
            raise KernelError("use address", _in_link(tested, name), 0, hint)
        pause(_DETECTION_PAUSE_SECONDS)


def _in_link(message: Message, name: str) -> str:
    _index, found = links.parse_address(message)
    return f"{found.address.ip} of {name}"


def wait_for_node(nl: Netlink, plan: Plan, pause: Pause) -> Message | None:
    """Wait until the node's end and its bridge forward to the pod, which has its link up.

    Returns the bridge as it is then, if the plan has one.
    """
    # The kernel asks for the neighbours of packets that it forwards from its link-local address
    # (net/ipv6/ndisc.c, ndisc_solicit), and asks again after a second where it has none yet.
    forwards = bool(_six(a.address for a in plan.pod.addresses))
    own = _six(a.address for a in plan.node.addresses)
    awaited = [_Awaited(plan.node.links[0].name, own, forwards and not plan.bridge)]
    # The port first: its carrier is the bridge's.
    if plan.bridge:
        awaited.append(_Awaited(plan.bridge.name, _six(plan.bridge.gateways), forwards))
    found = _wait(nl, awaited, pause, _DEADLINE_SECONDS if plan.pod.links[0].up else 0.0)
    return found[-1] if plan.bridge else None


def _six(addresses: Iterable[IPInterface]) -> frozenset[IPAddress]:
    return frozenset(address.ip for address in addresses if address.version == 6)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """What a link must have: IPv6 addresses that it answers for, a link-local one to ask from."""

    name: str
    served: frozenset[IPAddress]
    link_local: bool


def _wait(
    nl: Netlink, awaited: Sequence[_Awaited], pause: Pause, seconds: float
) -> list[Message | None]:
    """The links as they are at the end; one that is gone is None."""
    deadline = time.monotonic() + seconds
    # Asking for one link by name makes the kernel do its overdue part first (linkwatch_sync_dev in
    # rtnl_getlink, since 6.8).
    messages = [links.get_link(link.name) for link in awaited]
    while True:
        answers = nl.run(messages, tolerate=links.GONE)
        found = [answer.objects[0] if answer.objects else None for answer in answers]
        if all(m is None or _is_ready(nl, k, m) for k, m in zip(awaited, found, strict=True)):
            return found
        if time.monotonic() >= deadline:
            return found
        pause(_PAUSE_SECONDS)


def _is_ready(nl: Netlink, link: _Awaited, found: Message) -> bool:
    index, works = links.parse_operational(found)
    if not works:
        return False
    if link.link_local and any(map(links.is_tentative, nl.dump(links.list_addresses(index)))):
        return False
    if not link.served:
        return True
    local = nl.dump(routes.list_local_routes(6, index))
    return link.served <= {routes.parse_destination(route) for route in local}
