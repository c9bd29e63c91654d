"""ADD: everything that the plan says, or nothing."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from cni_plugin import networks
from cni_plugin.addressing import delegate_of, delegated_type, own_ipam, to_result
from cni_plugin.errors import (
    ALREADY_ATTACHED,
    INVALID_CONFIG,
    INVALID_ENVIRONMENT,
    TRY_AGAIN,
    CniError,
)
from cni_plugin.host import Call
from cni_plugin.plan import Shape, plan_attachment, shape_of, wanted_mac
from cni_plugin.rebuild import open_node_store
from cni_plugin.record import Record, dump_record
from cni_plugin.removal import remove, remove_made_bridge
from cni_plugin.result import Result, merge, parse_result
from ipam.allocator import allocate
from ipam.config import IpamConf
from ipam.store import Store, Transaction
from kernel.attach import attach, pod_has_link
from kernel.model import Link, Plan
from kernel.netlink import Netlink
from kernel.netns import Namespace
from kernel.read import read_link, read_uplink_mtu


def add(call: Call) -> Result:
    """Attach the pod. Raises CniError, IpamError or KernelError, and then nothing has changed."""
    shape = shape_of(call.conf, call.host.program, delegated_type(call))
    before = _previous(call)
    own = _check_config(call, shape)
    with ExitStack() as resources:
        pod = resources.enter_context(call.host.open_netns(call.request.netns))
        nl = resources.enter_context(Netlink())
        _check_pod(call, pod)
        store = resources.enter_context(open_node_store(call))
        result = _add(call, shape, own, nl, pod, store)
    return merge(before, result) if before else result


def _check_config(call: Call, shape: Shape) -> IpamConf | None:
    """Refuse what is wrong in itself before anything is opened, made or asked for.

    Returns the configuration of podwire's own IPAM, None where it has no part.
    """
    if shape.mode == "ptp" and not call.conf.uses_ipam:
        raise CniError(INVALID_CONFIG, f"network {call.conf.name}: mode ptp needs ipam")
    wanted_mac(call.request, call.conf)
    if shape.delegate:
        delegate_of(call)
        return None
    return own_ipam(call) if call.conf.uses_ipam else None


def _previous(call: Call) -> Result | None:
    raw = call.conf.prev_result
    return parse_result(raw, call.version) if raw else None


def _check_pod(call: Call, pod: Namespace) -> None:
    request = call.request
    if pod.is_current() and not request.netns_override:
        msg = f"CNI_NETNS={request.netns!r} is the node's own network namespace"
        raise CniError(INVALID_ENVIRONMENT, msg)
    if pod_has_link(pod, request.ifname):
        msg = f"the pod has a link {request.ifname} already (CNI_IFNAME)"
        raise CniError(ALREADY_ATTACHED, msg, f"in {request.netns}; DEL the old attachment first")


def _add(
    call: Call, shape: Shape, own: IpamConf | None, nl: Netlink, pod: Namespace, store: Store
) -> Result:
    mtu = call.conf.mtu or read_uplink_mtu(nl)
    with ExitStack() as undo:
        plan, result, text = _record(call, shape, own, store, mtu, undo)
        if plan.bridge and read_link(nl, plan.bridge.name) is None:
            undo.callback(remove_made_bridge, nl, store, plan.bridge.name)
        # From here on the store knows the attachment: whatever kills us, DEL and GC find it.
        undo.callback(remove, nl, store, call.owner, Record(plan))
        networks.ensure_tables(store, _nft_families(plan))
        bridge = attach(nl, pod, plan)
        if plan.masquerade:
            networks.ensure_masquerade(store)
        _check_still_wanted(call, store, text)
        undo.pop_all()
    return _with_bridge(nl, result, bridge)


def _nft_families(plan: Plan) -> list[str]:
    masquerade = {"inet"} if plan.masquerade else set()
    return sorted(masquerade | {element.family for element in plan.elements})


def _record(
    call: Call, shape: Shape, own: IpamConf | None, store: Store, mtu: int | None, undo: ExitStack
) -> tuple[Plan, Result, str]:
    """Addresses and the attachment's record, in one commit, before the kernel is touched."""
    delegated = _ask_delegate(call, undo)
    with store.transaction() as tx:
        ipam = delegated or Result()
        if own is not None:
            ipam = to_result(own, allocate(tx, own, call.owner))
        plan, result = plan_attachment(call.request, call.conf, shape, ipam, mtu)
        text = dump_record(_record_of(call, plan, result, shape.delegate))
        _keep(tx, call, plan, text)
    return plan, result, text


def _keep(tx: Transaction, call: Call, plan: Plan, text: str) -> None:
    tx.put_attachment(call.owner, text)
    if plan.masquerade:
        networks.enter(tx, call.conf.name, plan.masquerade)


def _record_of(call: Call, plan: Plan, result: Result, delegate: str) -> Record:
    return Record(
        plan=plan,
        netns=call.request.netns,
        pod=call.request.pod,
        ipam=delegate,
        aliases=tuple(call.conf.runtime_config.aliases),
        dns=result.dns or None,
    )


def _ask_delegate(call: Call, undo: ExitStack) -> Result | None:
    if not delegated_type(call):
        return None
    delegate = delegate_of(call)
    result = delegate.add()
    undo.callback(delegate.undo)
    if not result.ips:
        raise CniError(INVALID_CONFIG, f"IPAM plugin {delegate.name} returned no address")
    return result


def _check_still_wanted(call: Call, store: Store, text: str) -> None:
    # A DEL that overtook us (the runtime gave up on this ADD) has removed the record and may have
    # looked for the link before it was there.
    with store.read() as tx:
        if tx.attachment(call.owner) != text:
            msg = "the attachment was deleted while it was being made"
            raise CniError(TRY_AGAIN, msg, "the runtime sent DEL before ADD had answered")


def _with_bridge(nl: Netlink, result: Result, bridge: Link | None) -> Result:
    if bridge is None:
        return result
    # Read last: a bridge's MAC may change with its first port.
    fresh = read_link(nl, bridge.name)
    if fresh is None:
        return result
    first = replace(result.interfaces[0], mac=fresh.mac or "", mtu=fresh.mtu or 0)
    return replace(result, interfaces=(first, *result.interfaces[1:]))
