"""Plans become kernel state here, and vanish again: attach, detach, check."""

from __future__ import annotations

import errno
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from kernel.diff import Change, Noun, diff_space
from kernel.errors import KernelError
from kernel.forwarding import apply_node_settings
from kernel.model import Address, ChainRules, Element, IPAddress, Link, Plan, Space, Sysctl
from kernel.netlink import links, neighbours, routes
from kernel.netlink.codec import Message
from kernel.netlink.socket import POD_OBJECTS_MAX, Answer, Netlink
from kernel.netns import Namespace, inside
from kernel.nftables.masquerade import Masqueraded, is_covered, masquerade_elements
from kernel.nftables.port_mappings import forget_datagrams
from kernel.nftables.ruleset import parts_of, set_of
from kernel.nftables.set_messages import (
    PER_TRANSACTION,
    change_elements,
    ordered,
    read_sets,
    remove_elements,
)
from kernel.nftables.table import load, open_nft, table_changes
from kernel.operstate import Pause, wait_for_detection, wait_for_node, wait_for_pod
from kernel.other_stack import kernels_share
from kernel.read import read_addresses, read_link, read_space
from kernel.sysctl import apply_sysctl, explain_silence

_PRESENT = frozenset({errno.EEXIST})


class KeyTaken(KernelError):
    """A map leads a key of the plan elsewhere already: another pod has the port of the node."""


class LinkExists(KernelError):
    """The pod has a link of that name already."""


def attach(
    nl: Netlink,
    pod: Namespace,
    plan: Plan,
    bridge: Link | None = None,
    pause: Pause = time.sleep,
) -> Link | None:
    """Give the pod everything in the plan, or nothing: what was done is undone on any failure.

    Returns the bridge as it is then, if the plan has one.  The shared rules of plan.masquerade are
    not applied here: they belong to the network (see `masquerade.py`).  Raises KernelError,
    LinkExists where the pod has a link of that name, KeyTaken.  pause: sleeps while the kernel
    finishes the pair. bridge: the plan's, as `ensure_bridge` left it.
    """
    if why := explain_silence_to(plan.node):
        raise KernelError("attach the pod", "", 0, why)
    with ExitStack() as undo:
        answers = _create_pair(nl, pod, plan, bridge.index if bridge else 0)
        added: list[Element] = []
        # The link first: a repair of rules brings back the elements of links that are there.
        mine = [plan.node.links[0].name]
        undo.callback(lambda: detach(nl, mine, tuple(added)))
        host, peer = _read_pair(answers)
        if plan.node.buckets:
            from kernel.traffic_control import apply_limits  # few attachments have limits

            apply_limits(nl, plan.node, host)
            mine += [link.name for link in plan.node.links[1:]]
        # The node's end first: what the pod's end announces when it comes up must get through.
        _configure_node(nl, plan.node, host)
        bridge = _configure(nl, pod, plan, peer, added, pause) or bridge
        undo.pop_all()
    return bridge


def complete(
    nl: Netlink,
    pod: Namespace,
    plan: Plan,
    bridge: Link | None = None,
    pause: Pause = time.sleep,
) -> Link | None:
    """Give a port of a bridge that `attach` made what its plan has had since: addresses, routes.

    Parameters, result and errors are those of `attach`; yet nothing is undone.
    """
    messages = [links.set_traits(link) for link in plan.node.links]
    messages.append(links.get_link(plan.node.links[0].name))
    _host, peer = links.parse_pair(nl.run(messages)[-1].objects[0])
    return _configure(nl, pod, plan, peer, [], pause) or bridge


def _configure(
    nl: Netlink, pod: Namespace, plan: Plan, peer: int, added: list[Element], pause: Pause
) -> Link | None:
    """Everything but the pair and the node's end of it; the plan's bridge as it is then.

    peer: the index of the pod's end. added: takes the elements that were.
    """
    _configure_pod(pod, plan.pod, peer, pause)
    # The bridge as its new port left it: its MAC may change with its first one.
    settled = wait_for_node(nl, plan, pause)
    if plan.elements:
        add_elements(plan.elements, added)
        forget_datagrams(plan.elements)
    # Last, for these cannot be undone: other attachments may rely on them a moment later.
    apply_node_settings(nl, _settings(plan.node, own=False))
    return links.parse_link(settled) if settled else None


def explain_silence_to(node: Space) -> str:
    """Why the node does not answer the pod's ARP; empty where it does, or the plan needs none."""
    asks = any(setting.path.endswith("/arp_ignore") for setting in node.sysctls)
    return explain_silence() if asks else ""


def _settings(node: Space, *, own: bool) -> list[Sysctl]:
    """The settings of the attachment's own link, or those of the whole node."""
    return [s for s in node.sysctls if (node.links[0].name in s.path.split("/")) is own]


def _create_pair(nl: Netlink, pod: Namespace, plan: Plan, master: int) -> list[Answer]:
    """Create the pair, set its traits, and read what the kernel made of it."""
    host, peer = plan.node.links[0], plan.pod.links[0]
    # The settings of a port do not matter to IPv6, which is the bridge's: it may come up at once,
    # unless it is to be limited first.
    up = host.up and host.port is not None and not plan.node.buckets
    messages = [
        links.create_veth(host, peer, pod.fd, master),
        links.set_traits(host, up=up, settings=_settings(plan.node, own=True)),
        links.get_link(host.name),
    ]
    answers = nl.exchange(messages)
    if answers[0].errno == errno.EEXIST:
        # Either end's name may be the one that exists.  A node-side link of this name without a
        # peer in the pod is what a killed ADD of the same attachment left, for the name is derived
        # from its key; it may have vanished just now, with the namespace that its peer was in.
        if pod_has_link(pod, peer.name):
            raise LinkExists("create link", peer.name, errno.EEXIST, f"in {pod.path}")
        delete_links(nl, [host.name])
        answers = nl.exchange(messages)
    if answers[0].errno:
        raise KernelError(str(messages[0]), "", answers[0].errno, answers[0].hint)
    return answers


def _read_pair(answers: list[Answer]) -> tuple[int, int]:
    """The indexes of the node's end and of the pod's, each in its own namespace."""
    _created, described, host = answers
    if described.errno:
        without = "this kernel has no IPv6" if described.errno == errno.EAFNOSUPPORT else ""
        hint = without or described.hint
        raise KernelError("set up link", "just made", described.errno, hint)
    if not host.objects:
        raise KernelError("find link", "just made", host.errno or errno.ENODEV, host.hint)
    return links.parse_pair(host.objects[0])


def _configure_pod(pod: Namespace, desired: Space, index: int, pause: Pause) -> None:
    with inside(pod):
        nl = Netlink()
        for setting in desired.sysctls:
            apply_sysctl(setting, fresh=True)
    with nl:
        name, messages = desired.links[0].name, _link_messages(desired, index)
        if any(address.dad for address in desired.addresses):
            # The kernel takes no route from an address that it still tests.
            nl.run(messages, tolerate=_PRESENT)
            wait_for_detection(nl, name, index, pause)
            messages = []
        messages += [*_route_messages(desired, index), links.get_link(name)]
        found = nl.run(messages, tolerate=_PRESENT)[-1].objects
        wait_for_pod(nl, desired, found[0] if found else None, pause)


def _link_messages(desired: Space, index: int) -> list[Message]:
    # Addresses first: a link that comes up announces those that it has (arp_notify).
    messages = [links.add_address(a, index) for a in desired.addresses]
    # A message before the one that sets it up: flags are done first (net/core/rtnetlink.c).
    for link in desired.links if desired.links[0].up else ():
        messages += [links.set_arp_notify(link.name), links.set_up(link.name)]
    return messages


def _route_messages(desired: Space, index: int) -> list[Message]:
    # After the link came up: the kernel takes them only on one that is up.
    messages = [neighbours.add_neighbour(n, index) for n in desired.neighbours]
    return messages + [routes.add_route(r, index) for r in desired.routes]


def _configure_node(nl: Netlink, desired: Space, index: int) -> None:
    for setting in _settings(desired, own=True):
        if not links.carries(setting):
            # What is required is the kernel's own default, and so mostly there.
            apply_sysctl(setting, fresh=not setting.required)
    messages = [links.add_address(a, index) for a in desired.addresses]
    late = [link for link in desired.links if link.up and (link.port is None or desired.buckets)]
    messages += [links.set_up(link.name) for link in reversed(late)]
    # A route to the pod's address that is there already is another's: it is never taken over.
    try:
        nl.run(messages + [routes.add_route(r, index, exclusive=True) for r in desired.routes])
    except KernelError as error:
        if error.errno != errno.EEXIST:
            raise
        hint = "another pod of this node has the address: do two networks share a subnet?"
        raise KernelError(error.operation, error.target, error.errno, hint) from error


def add_elements(elements: tuple[Element, ...], added: list[Element]) -> None:
    """Add elements, with their tables where those are missing, and note those that were.

    Raises KernelError, KeyTaken.
    """
    waiting = ordered(elements)
    with open_nft() as nl:
        while waiting:
            chosen, waiting = waiting[:PER_TRANSACTION], waiting[PER_TRANSACTION:]
            try:
                _add_some(nl, chosen)
            except KernelError as error:
                if error.errno != errno.EEXIST:
                    raise
                target = ", ".join(sorted({e.set_name for e in chosen if e.data is not None}))
                raise KeyTaken("add to nft map", target, error.errno) from error
            added += chosen


def _add_some(nl: Netlink, elements: list[Element]) -> None:
    try:
        change_elements(nl, elements, ())
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        load(*parts_of(elements))
        change_elements(nl, elements, ())


def detach(nl: Netlink, host_links: Sequence[str], elements: tuple[Element, ...]) -> None:
    """Remove an attachment's kernel state; what is gone already is no error.

    Works without the pod's namespace: a pair's end takes the other one along.
    """
    delete_links(nl, host_links)
    if elements:
        with open_nft() as nfnl:
            remove_elements(nfnl, elements)


def delete_links(nl: Netlink, names: Sequence[str]) -> bool:
    """Delete links by name; whether the first was there. Raises KernelError.

    Several go as one group: each deletion of its own would wait for the memory to be freed.
    """
    if len(names) == 1:
        messages = [links.delete_link(names[0])]
    else:
        messages = [links.set_group(name, links.GROUP) for name in names]
        messages.append(links.delete_group(links.GROUP))
    return nl.run(messages, tolerate=links.GONE)[0].errno == 0


def run_in(pod: Namespace) -> Netlink:
    """A socket of the pod's namespace."""
    with inside(pod):
        return Netlink()


def delete_link_of_kind(nl: Netlink, name: str, kind: str, mac: str = "") -> bool:
    """Delete a link by name if it is of a kind, and has the MAC if one is given; whether it did."""
    link = read_link(nl, name)
    fits = link is not None and link.kind == kind and mac in ("", link.mac)
    return fits and delete_links(nl, [name])


def delete_pod_link(
    pod: Namespace, name: str, macs: Collection[str], addresses: Collection[IPAddress] = ()
) -> bool:
    """Delete the pod's link of that name if it is a veth with one of the MACs or addresses."""
    with run_in(pod) as nl:
        link = read_link(nl, name)
        if link is None or link.kind != "veth":
            return False
        found = {a.address.ip for a in read_addresses(nl, [link])} if addresses else set()
        if link.mac not in macs and found.isdisjoint(addresses):
            return False
        return delete_links(nl, [name])


def pod_has_link(pod: Namespace, name: str) -> bool:
    """Whether the pod has a link of that name."""
    with run_in(pod) as nl:
        return read_link(nl, name) is not None


def check(
    nl: Netlink, pod: Namespace, plan: Plan, masqueraded: Iterable[Masqueraded] = ()
) -> list[tuple[str, Change[Noun]]]:
    """(where, difference) of the plan and the kernel; empty when all is as planned.

    masqueraded: the plan's share of its network.
    where: "pod" or "node", the namespace; empty for rules.
    """
    elements = (*plan.elements, *masquerade_elements(masqueraded))
    return check_parts(nl, _with_bridge(plan), pod, plan.pod, elements)


def check_parts(
    nl: Netlink, node: Space, pod: Namespace | None, in_pod: Space, elements: Iterable[Element]
) -> list[tuple[str, Change[Noun]]]:
    """The same of shares of the node and of the pod, and of elements. pod: None for no share."""
    found: list[tuple[str, Change[Noun]]] = []
    if pod is not None:
        with inside(pod), Netlink(dump_max=POD_OBJECTS_MAX) as inner:
            observed = read_space(inner, in_pod)
            share = _checked(kernels_share(in_pod, observed))
        found += [("pod", change) for change in diff_space(share, observed)]
    found += [("node", change) for change in diff_space(_checked(node), read_space(nl, node))]
    return [*found, *(("", change) for change in _check_rules(elements))]


def _checked(space: Space) -> Space:
    """What CHECK compares of a plan's share: aliases may be changed from outside."""
    links = tuple(replace(link, alias=None, arp=None) for link in space.links)
    return replace(space, links=links)


def _with_bridge(plan: Plan) -> Space:
    node = plan.node
    if plan.bridge is None:
        return node
    bridge = Link(plan.bridge.name, "bridge")
    gateways = tuple(Address(plan.bridge.name, g) for g in plan.bridge.gateways)
    return replace(
        node,
        links=(*node.links, bridge),
        addresses=(*node.addresses, *gateways),
        sysctls=(*node.sysctls, *plan.bridge.sysctls),
    )


def _check_rules(elements: Iterable[Element]) -> list[Change[ChainRules | Element]]:
    """What is missing of these elements, and of the parts of tables that they need."""
    desired = set(elements)
    if not desired:
        return []
    with open_nft() as nl:
        broken = [change for part in parts_of(desired) for change in table_changes(nl, part)]
        present = read_sets(nl, {set_of(element) for element in desired})
    return [*broken, *(Change(e, None) for e in desired - present if not _is_merged(e, present))]


def _is_merged(element: Element, present: Iterable[Element]) -> bool:
    if element.key_end is None:  # of no interval: thousands would be compared with thousands
        return False
    place = element.family, element.set_name
    return is_covered(element, (p for p in present if (p.family, p.set_name) == place))
