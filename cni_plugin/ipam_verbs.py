"""The verbs of podwire-ipam, the IPAM that any main plugin can delegate to."""

from __future__ import annotations

from ipaddress import ip_interface

from cni_plugin.errors import ALREADY_ATTACHED, CHECK_FAILED, CniError
from cni_plugin.host import Call
from cni_plugin.ipam_client import check_space, data_dir, own_ipam, to_result
from cni_plugin.result import Result, parse_result
from ipam.store import open_store


def add(call: Call) -> Result:
    """Allocate. An attachment that holds addresses is refused, as `host-local` does.

    A main plugin that failed for a duplicate would DEL, and free the addresses of a live pod.
    """
    from ipam.allocator import allocate  # no other verb's

    conf = own_ipam(call)
    with open_store(conf.data_dir) as store, store.transaction() as tx:
        held = tx.addresses(call.owner)
        if held:
            msg = f"{call.owner.container_id} {call.owner.ifname} holds {held[0]} already"
            raise CniError(ALREADY_ATTACHED, msg, "duplicate allocation is not allowed; DEL first")
        return to_result(conf, allocate(tx, conf, call.owner))


def delete(call: Call) -> None:
    """Release; success where nothing is held."""
    with open_store(data_dir(call)) as store, store.transaction() as tx:
        tx.release(call.owner)


def check(call: Call) -> None:
    """Raise code 102 where the attachment's addresses are not held for it."""
    with open_store(data_dir(call)) as store, store.read() as tx:
        held = set(tx.addresses(call.owner))
    told = parse_result(call.conf.prev_result, call.version) if call.conf.prev_result else Result()
    lost = [str(ip.address.ip) for ip in told.ips if ip_interface(ip.address).ip not in held]
    if not held or len(lost) == len(told.ips) > 0:
        what = ", ".join(lost) or "any address"
        msg = f"{call.owner.container_id} {call.owner.ifname} does not hold {what}"
        raise CniError(CHECK_FAILED, msg, "the allocation is lost: another pod may be given it")


def collect(call: Call) -> None:
    """Release what attachments hold that the runtime does not list."""
    valid = call.valid_attachments
    if valid is None:
        call.log("GC without cni.dev/valid-attachments: nothing can be told to be stale")
        return
    with open_store(data_dir(call)) as store, store.transaction() as tx:
        owners = {allocation.owner for allocation in tx.allocations(call.conf.name)}
        for owner in owners:
            if (owner.container_id, owner.ifname) not in valid:
                tx.release(owner)
                call.log(f"released the addresses of {owner.container_id} {owner.ifname}")


def status(call: Call) -> None:
    """Raise code 50 where a range is full."""
    conf = own_ipam(call)
    with open_store(conf.data_dir) as store, store.transaction() as tx:
        check_space(tx, conf)
