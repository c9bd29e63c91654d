"""What a namespace lacks of a plan's share is made again, from the differences alone."""

from __future__ import annotations

import errno
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace

from kernel.describe import name_of, state_of
from kernel.diff import Change, Noun
from kernel.errors import KernelError
from kernel.forwarding import apply_node_settings
from kernel.model import (
    Address,
    IPNetwork,
    Link,
    Neighbour,
    Redirect,
    Route,
    Sysctl,
    TokenBucket,
)
from kernel.netlink import links, routes
from kernel.netlink.codec import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Message
from kernel.netlink.neighbours import add_neighbour
from kernel.netlink.socket import Netlink
from kernel.read import read_link
from kernel.routes import find_rival
from kernel.traffic_control import repair_limits


def repair(
    nl: Netlink, changes: Sequence[Change[Noun]], index: int, taken: Container[IPNetwork] = ()
) -> None:
    """Make what differs of one link as desired; what is there beyond that stays.

    index: of the link, which is there. taken: destinations of which another's route has just taken
    the place of podwire's, which comes back; any other route is left. Raises KernelError, with what
    came before done.
    """
    nouns = [change.desired for change in changes if change.desired is not None]
    # Without their settings, addresses and routes may be refused.
    apply_node_settings(nl, [noun for noun in nouns if isinstance(noun, Sysctl)])
    messages: list[Message] = []
    for change in changes:
        if isinstance(change.desired, Link) and not _is_another_ifb(change):
            messages += _link_messages(nl, change, change.desired)
    messages += [links.add_address(noun, index) for noun in nouns if isinstance(noun, Address)]
    messages += [add_neighbour(noun, index) for noun in nouns if isinstance(noun, Neighbour)]
    nl.run(messages, tolerate=frozenset({errno.EEXIST}))
    if any(isinstance(noun, TokenBucket | Redirect) or _is_ifb(noun) for noun in nouns):
        repair_limits(nl, changes)
    for change in changes:
        if isinstance(change.desired, Route):
            replaces = change.observed is not None or change.desired.dst in taken
            _set_route(nl, change.desired, index, NLM_F_REPLACE if replaces else NLM_F_EXCL)


def _is_ifb(noun: Noun) -> bool:
    return isinstance(noun, Link) and noun.kind == "ifb"


def _is_another_ifb(change: Change[Noun]) -> bool:
    return _is_ifb(change.noun) and (change.observed is None or change.concerns(["mac"]))


def _link_messages(nl: Netlink, change: Change[Noun], desired: Link) -> Iterator[Message]:
    name, port = desired.name, desired.port
    if port and change.concerns(["master"]):
        bridge = read_link(nl, port.bridge) if port.bridge else None
        if port.bridge and bridge is None:
            raise KernelError("find bridge", port.bridge, errno.ENODEV)
        yield links.set_master(name, bridge.index if bridge else 0)
    if change.concerns(["master", "hairpin", "isolation", "alias"]):
        yield links.set_traits(desired if port and port.bridge else replace(desired, port=None))
    if desired.mac and change.concerns(["mac"]):
        yield links.set_mac(name, desired.mac)
    if desired.mtu and change.concerns(["mtu"]):
        yield links.set_mtu(name, desired.mtu)
    if change.concerns(["up"]):
        yield links.set_up(name)


def _set_route(nl: Netlink, route: Route, index: int, flags: int) -> None:
    answer = nl.exchange([routes.set_route(route, index, NLM_F_CREATE | flags)])[0]
    rival = find_rival(nl, route) if answer.errno == errno.EEXIST else None
    if rival is not None:
        hint = f"another route is in its place, and is not podwire's to remove: {state_of(rival)}"
        raise KernelError("set", name_of(route), answer.errno, hint)
    if answer.errno not in (0, errno.EEXIST):
        raise KernelError("set", name_of(route), answer.errno, answer.hint)
