"""CHECK and STATUS: the observed state against the desired one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from cni_plugin import network_rules as networks
from cni_plugin.attachment import Record
from cni_plugin.errors import CHECK_FAILED, INVALID_CONFIG, NOT_AVAILABLE, CniError
from cni_plugin.host import Call
from cni_plugin.ipam_client import ipam_of_record
from cni_plugin.removal import find_record
from cni_plugin.result import Result, canonical_mac
from cni_plugin.shape import Shape, shape_of
from cni_plugin.store_access import is_gateway_used, open_node_store, stores_of_attachment
from ipam.errors import IpamError, StoreDamaged
from ipam.store import Store, Transaction
from kernel import attach
from kernel.bridge import check_bridge
from kernel.describe import describe
from kernel.errors import KernelError
from kernel.model import Address, Bridge, Link, Plan
from kernel.netlink.socket import Netlink, open_netlink


def check(call: Call) -> None:
    """Raise code 102 naming every difference between the attachment and its plan."""
    previous = call.previous()
    if previous is None:
        raise CniError(INVALID_CONFIG, "CHECK needs prevResult, the result of the attachment's ADD")
    with ExitStack() as resources:
        pod = resources.enter_context(call.host.open_netns(call.request.netns))
        nl = resources.enter_context(open_netlink())
        store, record = _find(call, nl, resources)
        if record is None:
            raise _failed(call, ["podwire has no record of this attachment, and no link of it"])
        plan = _expected(record.whole, previous, call.request.ifname)
        faults = _result_faults(record.plan, previous, call.request.ifname)
        faults += filter(None, [attach.explain_silence_to(plan.node)])
        faults += _acceptance_faults(record)
        ipam, addresses = ipam_of_record(record.ipam), record.plan.pod.addresses
        with store.read() as tx:
            own = [a.address.ip for a in addresses]
            masqueraded = networks.masqueraded(tx, call.conf.name, plan.masquerade, own)
            found = attach.check(nl, pod, plan, masqueraded)
            faults += [describe(change, where) for where, change in found]
            faults += ipam.lost(tx, call.owner, own)
    if faults:
        raise _failed(call, faults)
    ipam.run("CHECK", call)


def _acceptance_faults(record: Record) -> list[str]:
    if not record.pieces:
        return []
    from kernel.pieces import acceptance_faults  # few networks need it

    return [describe(change) for change in acceptance_faults(record.pieces)]


def _find(call: Call, nl: Netlink, resources: ExitStack) -> tuple[Store, Record | None]:
    """The attachment's record and its store; one that was rebuilt is the worse one."""
    for folder in stores_of_attachment(call):
        store = resources.enter_context(open_node_store(call, folder))
        with store.read() as tx:
            record = find_record(nl, tx, call.owner)
        if record and record.complete:
            break
    return store, record


def _failed(call: Call, faults: list[str]) -> CniError:
    owner = call.owner
    who = f"{call.request.pod or owner.container_id} ({owner.ifname} on network {owner.network})"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    details = "; ".join(faults) + f". Recreate {who}: its network differs from its plan"
    return CniError(CHECK_FAILED, f"{who}: {faults[0]}{more}", details)


def _result_faults(plan: Plan, previous: Result, ifname: str) -> list[str]:
    """What prevResult lacks of the attachment, though every ADD returns it."""
    if previous.of_pod(ifname) is None:
        return [f"prevResult lists no interface {ifname} of the pod"]
    if plan.pod.addresses and not previous.ips:
        return [f"prevResult lists no address of {ifname}"]
    return []


def _expected(plan: Plan, previous: Result, ifname: str) -> Plan:
    """The plan with what later plugins of the chain changed, as prevResult has it.

    SPEC 1.1.0 "CHECK": allow for a later plugin to have modified networking resources.
    """
    seen = previous.of_pod(ifname)
    first, *others = plan.pod.links
    # MTU: versions before 1.1.0 have no place for a change of it.
    link = replace(
        first,
        mac=(canonical_mac(seen.mac) if seen else "") or first.mac,
        mtu=seen.mtu if seen else None,
    )
    ips = previous.addresses_of_pod(ifname)
    addresses = {a.address: a for a in plan.pod.addresses}
    wanted = [addresses.get(ip, Address(ifname, ip)) for ip in ips] or list(plan.pod.addresses)
    kept = {r.dst for r in previous.routes}
    dropped = _result_routes(plan) - kept if previous.routes or previous.interfaces else set()
    routes = tuple(r for r in plan.pod.routes if r.dst not in dropped)
    links: tuple[Link, ...] = (link, *others)
    return replace(plan, pod=replace(plan.pod, links=links, addresses=tuple(wanted), routes=routes))


def _result_routes(plan: Plan) -> set[object]:
    """Destinations of the routes that the result lists; the link's own (by source) are not."""
    return {r.dst for r in plan.pod.routes if r.src is None}


def status(call: Call) -> None:
    """Raise code 50 where an ADD could not be served, saying why; 7 where it never could."""
    call.ipam.validate(call)
    shape = shape_of(call.conf, call.host.program)
    try:
        with open_netlink() as nl, open_node_store(call) as store:
            _require_space(call, store)
            if shape.mode == "bridge":
                with store.read() as tx:
                    _check_bridge(call, shape, nl, tx)
    except StoreDamaged:
        raise
    except (IpamError, KernelError) as error:
        raise CniError(NOT_AVAILABLE, f"an ADD would fail: {error}") from error
    _check_tools(call, shape)
    call.ipam.run("STATUS", call)
    fault = call.host.readiness(call.conf.name)
    if fault is not None:
        raise fault


def _require_space(call: Call, store: Store) -> None:
    try:
        with store.transaction() as tx:
            call.ipam.require_space(call, tx)
    except CniError:
        from cni_plugin.reclaim import reclaim

        if not reclaim(store, call.log):
            raise
        with store.transaction() as tx:
            call.ipam.require_space(call, tx)


def _check_bridge(call: Call, shape: Shape, nl: Netlink, tx: Transaction) -> None:
    gateways = call.ipam.gateways(call) if shape.gateway else ()
    bridge = Bridge(call.conf.bridge, gateways=gateways, force_address=call.conf.force_address)
    check_bridge(nl, bridge, partial(is_gateway_used, tx))


def _check_tools(call: Call, shape: Shape) -> None:
    from kernel.programs import find_program

    filters = shape.masquerade_hairpin or shape.source_check or shape.mac_check
    if (filters or call.conf.ip_masq) and find_program("nft") is None:
        msg = "the program nft is missing: rules cannot be made"
        raise CniError(NOT_AVAILABLE, msg, "install the package nftables on this node")
