"""ADD: everything in the plan, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TypeVar

from cni_plugin import network_rules as networks
from cni_plugin.attachment import Record, cleanup_record_of, dump_record
from cni_plugin.chained import native_pieces
from cni_plugin.errors import (
    ALREADY_ATTACHED,
    INVALID_CONFIG,
    TRY_AGAIN,
    CniError,
)
from cni_plugin.host import Call
from cni_plugin.ipam_client import Allocate
from cni_plugin.masquerade_record import single_ranges, whole_ranges
from cni_plugin.plan import plan_attachment
from cni_plugin.plan_parts import requested_mac
from cni_plugin.removal import forget, remove, remove_made_bridge
from cni_plugin.result import Result, merge
from cni_plugin.shape import Shape, shape_of
from cni_plugin.store_access import (
    begin_transaction,
    bridge_users,
    enter_own_store,
    open_node_store,
)
from ipam.errors import AddressTaken, RangeExhausted
from ipam.store import Store, Transaction
from kernel.attach import KeyTaken, LinkExists, attach, complete, pod_has_link
from kernel.bridge import ensure_bridge
from kernel.conntrack import forget_senders
from kernel.model import IPAddress, Link, Plan
from kernel.netlink.socket import Netlink, open_netlink
from kernel.netns import Namespace
from kernel.nftables.port_mappings import mappings_of
from kernel.read import read_uplink_and_bridge

T = TypeVar("T")
_Recorded = tuple[Record, Result, str, Sequence[IPAddress]]


def add(call: Call) -> Result:
    """Attach the pod. Raises CniError, IpamError or KernelError, and then nothing has changed."""
    shape = shape_of(call.conf, call.host.program, call.ipam.plugin)
    before = call.previous()
    _check_config(call, shape)
    with call.open_pod() as pod, open_netlink() as nl:
        # The kernel will refuse the link itself, but another IPAM plugin must not even be executed
        # then: our DEL would free what it gave to the attachment that is there.
        if call.ipam.plugin and pod_has_link(pod, call.request.ifname):
            raise _already_attached(call)
        enter_own_store(call)
        with open_node_store(call) as store:
            try:
                result = _add(call, shape, nl, pod, store)
            except LinkExists as error:
                raise _already_attached(call) from error
    return merge(before, result) if before else result


def _check_config(call: Call, shape: Shape) -> None:
    """Refuse what is wrong in itself before anything is opened, made or asked for."""
    if shape.mode == "ptp" and not call.conf.uses_ipam:
        raise CniError(INVALID_CONFIG, f"network {call.conf.name}: mode ptp needs ipam")
    if shape.mode == "ptp" and call.ipam.leases:
        msg = f"ipam.type: {call.ipam.plugin} needs mode bridge: on a routed pair nobody leases"
        raise CniError(INVALID_CONFIG, msg)
    requested_mac(call.request, call.conf)
    call.ipam.validate(call)


def _already_attached(call: Call) -> CniError:
    msg = f"the pod has a link {call.request.ifname} already (CNI_IFNAME)"
    hint = f"in {call.request.netns}; DEL the old attachment first"
    return CniError(ALREADY_ATTACHED, msg, hint)


def _add(call: Call, shape: Shape, nl: Netlink, pod: Namespace, store: Store) -> Result:
    name = call.conf.bridge if shape.mode == "bridge" else ""
    uplink, found, given = read_uplink_and_bridge(nl, uplink=not call.conf.mtu, bridge=name)
    mtus = uplink, given
    with ExitStack() as undo:
        record = partial(_record, call, shape, pod, store, mtus)
        make = partial(_make, call, nl, pod, store, found, undo)
        earlier = ""
        if call.ipam.leases:
            # First as of a network without addresses: it leases them by the pod's link.
            earlier, _ = make(partial(record, _no_addresses))
        allocate = call.ipam.add(call, undo)
        text, result = make(partial(record, allocate, earlier), completes=bool(earlier))
        _check_still_desired(call, store, text)
        undo.pop_all()
    return result


def _no_addresses(_tx: Transaction) -> Result:
    return Result()


def _make(
    call: Call,
    nl: Netlink,
    pod: Namespace,
    store: Store,
    found: Link | None,
    undo: ExitStack,
    record: Callable[[], _Recorded],
    *,
    completes: bool = False,
) -> tuple[str, Result]:
    """Record the attachment and make it; its record's text and the result.

    found: the bridge, as it was there before. completes: whether the pair is made already.
    """
    made, result, text, reused = _with_space(call, store, record)
    plan = made.plan
    bridges: list[str] = []
    undo.callback(_remove_bridges, nl, store, bridges)
    # From here on the store knows the attachment: whatever kills us, DEL and GC find it.
    whole = made.whole if made.pieces else plan
    addresses = [a.address.ip for a in plan.pod.addresses]
    undo.callback(forget, store, call.owner, whole.elements, addresses)
    if reused:
        # Whoever sent to the pod that had it before, and goes on, would reach this one.
        forget_senders(reused)
    masquerade = bool(plan.masquerade)
    networks.ensure_parts(store, networks.parts_needed(whole.elements, masquerade=masquerade))
    bridge = _ensure_bridge(call, nl, store, plan, found, bridges.append)
    clean = partial(remove, call.host, nl, store, call.owner, cleanup_record_of(made))
    if completes:
        undo.callback(clean)
        bridge = _attach(call, nl, store, plan, partial(complete, nl, pod, plan, bridge))
    else:
        # It undoes itself. What is there after LinkExists is an attachment that we have no record
        # of (another store may), and its links have the names that ours would have had.
        bridge = _attach(call, nl, store, plan, partial(attach, nl, pod, plan, bridge))
        undo.callback(clean)
    if made.pieces:
        _apply_pieces(nl, pod, made)
    if plan.masquerade:
        networks.ensure_masquerade(store)
    return text, _with_bridge(result, bridge)


def _apply_pieces(nl: Netlink, pod: Namespace, record: Record) -> None:
    from kernel.pieces import apply_piece  # few networks need it

    for piece in record.pieces:
        apply_piece(nl, pod, piece, record.elements_beside(piece.name))


def _attach(
    call: Call,
    nl: Netlink,
    store: Store,
    plan: Plan,
    attach_or_complete: Callable[..., Link | None],
) -> Link | None:
    """Do it; where another pod has a host port, that of a pod that is gone is freed."""
    act = partial(attach_or_complete, pause=call.host.pause)
    if mappings_of(plan.elements):
        from cni_plugin.port_conflicts import refuse_reserved

        refuse_reserved(plan.elements)
    try:
        return act()
    except KeyTaken as error:
        from cni_plugin.port_conflicts import retry_with_freed_ports  # rarely needed

        return retry_with_freed_ports(call, nl, store, plan, act, error)


def _ensure_bridge(
    call: Call,
    nl: Netlink,
    store: Store,
    plan: Plan,
    found: Link | None,
    made: Callable[[str], object],
) -> Link | None:
    """The plan's bridge, with the gateways of all ranges: the next pod may be in another subnet."""
    if plan.bridge is None:
        return None
    more = call.ipam.gateways(call) if plan.bridge.gateways else ()
    desired = replace(plan.bridge, gateways=tuple(dict.fromkeys((*plan.bridge.gateways, *more))))
    return ensure_bridge(nl, desired, made, found, partial(bridge_users, store))


def _remove_bridges(nl: Netlink, store: Store, names: list[str]) -> None:
    for name in names:
        remove_made_bridge(nl, store, name)


def _with_space(call: Call, store: Store, record: Callable[[], T]) -> T:
    """What `record` returns; where it finds no address, those of pods that are gone are freed."""
    try:
        return record()
    except (RangeExhausted, AddressTaken):
        from cni_plugin.reclaim import reclaim  # few calls need it

        if not reclaim(store, call.log):
            raise
        return record()


def _record(
    call: Call,
    shape: Shape,
    pod: Namespace,
    store: Store,
    mtus: tuple[int | None, int | None],
    allocate: Allocate,
    earlier: str = "",
) -> _Recorded:
    """Addresses and the attachment's record, in one commit, before the kernel is touched.

    mtus: of the default route's link, and that the bridge was given, as far as there are any.
    earlier: the record that this one replaces, of the pair alone. Last those addresses that another
    pod may have had before.
    """
    request, conf = call.request, call.conf
    with begin_transaction(store, conf.port_map.mappings) as tx:
        if earlier:
            _require_record(call, tx, earlier)
        # What the store knew before is not ours to delete when the kernel refuses the link.
        elif tx.knows(call.owner) and pod_has_link(pod, request.ifname):
            raise _already_attached(call)
        plan, result = plan_attachment(request, conf, shape, allocate(tx), *mtus)
        if mappings_of(plan.elements):
            from cni_plugin.port_conflicts import without_taken

            plan = without_taken(tx, call.owner, plan)
        aliases, dns = tuple(conf.runtime_config.aliases), result.dns or None
        record = Record(plan, request.netns, request.pod, call.ipam.plugin, aliases, dns)
        if conf.features and shape.native:
            record = replace(record, pieces=native_pieces(conf.features, plan))
        text = dump_record(record)
        tx.put_attachment(call.owner, text)
        if plan.masquerade:
            if plan.bridge:
                addresses = (a.address.ip for a in plan.pod.addresses)
                sources = (*call.ipam.ranges(call), *single_ranges(addresses))
            else:  # nobody but the pod is behind a routed pair
                sources = whole_ranges(plan.masquerade)
            kept = conf.non_masquerade_cidrs
            networks.add_prefixes(tx, conf.name, plan.masquerade, sources, kept)
        elif not conf.ip_masq:
            networks.limit_masquerade(tx, conf.name)
        # What another IPAM plugin gave to whom is not known.
        reused = [ip.address.ip for ip in result.ips] if call.ipam.plugin else tx.reused
    return record, result, text, reused


def _check_still_desired(call: Call, store: Store, text: str) -> None:
    # A DEL that overtook us (the runtime gave up on this ADD) has removed the record, and may have
    # found no link to delete yet.
    with store.read() as tx:
        _require_record(call, tx, text)


def _require_record(call: Call, tx: Transaction, text: str) -> None:
    found = tx.attachment(call.owner)
    if found != text and not (found and _is_the_same(found, text)):
        msg = "the attachment was deleted while it was being made"
        raise CniError(TRY_AGAIN, msg, "the runtime sent DEL before ADD had answered")


def _is_the_same(record: str, text: str) -> bool:
    """Whether it is ours, to which another attachment of the container has left its ports."""
    from cni_plugin.port_conflicts import has_been_passed_ports  # rarely needed

    return has_been_passed_ports(record, text)


def _with_bridge(result: Result, bridge: Link | None) -> Result:
    if bridge is None:
        return result
    first = replace(result.interfaces[0], mac=bridge.mac or "", mtu=bridge.mtu or 0)
    return replace(result, interfaces=(first, *result.interfaces[1:]))
