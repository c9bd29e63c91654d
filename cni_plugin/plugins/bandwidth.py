"""Limits of what a pod receives and sends: the capability `bandwidth`, with the keys of the
reference `bandwidth`.

Rates are of the pod's ingress and egress, in bits a second. Both are limits of links that send: of
the node's end of the pair, and of an ifb device that gets all that this end receives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cni_plugin.errors import INVALID_CONFIG, CniError
from cni_plugin.names import Mark, ifb_name, node_mac, render_alias
from ipam.json_section import Section
from kernel.model import Link, Piece, Redirect, Space, TokenBucket

if TYPE_CHECKING:  # the configuration is read without what the verbs need
    from cni_plugin.host import Call
    from cni_plugin.result import Result
    from ipam.transaction import Owner
    from kernel.netlink.socket import Netlink

_NAME = "bandwidth"
_BYTE = 8  # bits
_INTEGER_MAX = (1 << 64) - 1
_NUMBER_MAX = (1 << 32) - 1
_TICK = 64  # nanoseconds (linux/pkt_sched.h, PSCHED_SHIFT)
_WAIT = 25_000  # microseconds: for that long a packet may wait


@dataclass(frozen=True, slots=True)
class Limit:
    """rate in bytes a second, burst in bytes: what may go at once after a pause."""

    rate: int
    burst: int


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Limits of what the pod receives and of what it sends; None where there is none."""

    ingress: Limit | None = None
    egress: Limit | None = None


def parse_native(conf: Section) -> Bandwidth | None:
    """The limits of a configuration; None without any. Raises ConfigError.

    Keys of the plugin's own outrank those of the capability, all together, whatever they say.
    """
    keys = {"ingressrate", "ingressburst", "egressrate", "egressburst"}
    own = any(name.lower() in keys for name in conf.values)
    entry = conf if own else conf.section("runtimeConfig").section("bandwidth")
    found = Bandwidth(_limit(entry, "ingress"), _limit(entry, "egress"))
    return found if found.ingress or found.egress else None


def _limit(entry: Section, direction: str) -> Limit | None:
    keys = f"{direction}Rate", f"{direction}Burst"
    rate, burst = (entry.integer(key, highest=_INTEGER_MAX) or 0 for key in keys)
    for key, value, other in ((keys[0], rate, keys[1]), (keys[1], burst, keys[0])):
        if value == 0 and (rate or burst):
            raise entry.fail(key, value, f"more than 0, as {other} is")
    if burst // _BYTE >= _NUMBER_MAX:
        raise entry.fail(keys[1], burst, f"less than {_NUMBER_MAX * _BYTE} bits (4 GB)")
    if not rate:
        return None
    limit = Limit(rate // _BYTE, burst // _BYTE)
    if not limit.rate:
        raise entry.fail(keys[0], rate, f"at least {_BYTE} bits a second")
    if not _size(limit):
        raise entry.fail(keys[1], burst, "at least a byte, and a microsecond's worth of the rate")
    return limit


def _ticks(limit: Limit) -> int:
    """The burst as the kernel counts it: the time that it takes, in ticks.

    Whole microseconds, in the floating point of the reference. The kernel has no number for more
    than 4 minutes.
    """
    microseconds = int(limit.burst * 1e6 / limit.rate)
    return min(microseconds * 1000 // _TICK, _NUMBER_MAX)


def _size(limit: Limit) -> int:
    """The largest packet that passes, in bytes (net/sched/sch_tbf.c, tbf_change: max_size)."""
    return min(_ticks(limit) * _TICK, _NUMBER_MAX) * limit.rate // 10**9


def plan_limits(conf: Bandwidth, owner: Owner, host: Link, mac: str = "") -> Space:
    """What the node has for the limits, beside the node's end of the pair: host.

    mac: of the ifb device, unless it is the one that follows from its name.
    """
    received = (_bucket(host.name, conf.ingress),) if conf.ingress else ()
    if conf.egress is None:
        return Space(buckets=received)
    name = ifb_name(owner)
    mac = mac or node_mac(replace(owner, ifname=name))
    alias = render_alias(Mark(owner))
    return Space(
        links=(Link(name, "ifb", mac, host.mtu, alias=alias),),
        buckets=(*received, _bucket(name, conf.egress)),
        redirects=(Redirect(host.name, name),),
    )


def _bucket(link: str, limit: Limit) -> TokenBucket:
    waiting = int(limit.rate * _WAIT / 1e6)
    size = min(waiting + limit.burst, _NUMBER_MAX)
    return TokenBucket(link, limit.rate, _ticks(limit), size)


def plan_piece(call: Call, nl: Netlink, previous: Result) -> Piece | None:
    """The limits as a piece of a chain's attachment."""
    from cni_plugin.result import canonical_mac

    limits = parse_native(Section("", call.parsed.raw))
    if limits is None:
        return None
    host, mac = _host_link(call, nl, previous), ""
    if call.request.command == "CHECK":
        # The reference may have made the device, with a random MAC.
        name = ifb_name(call.owner)
        macs = (i.mac for i in previous.interfaces if i.name == name and not i.sandbox)
        mac = canonical_mac(next(macs, ""))
    return Piece(_NAME, plan_limits(limits, call.owner, host, mac))


def _host_link(call: Call, nl: Netlink, previous: Result) -> Link:
    """The node's end of the pair that the pod's link is the other end of."""
    from kernel.attach import run_in
    from kernel.read import read_link, read_peer_index

    with call.host.open_netns(call.request.netns) as pod, run_in(pod) as inner:
        peer = read_peer_index(inner, call.request.ifname)
    link = read_link(nl, index=peer) if peer else None
    listed = {interface.name for interface in previous.interfaces if not interface.sandbox}
    if link is None or link.name not in listed:
        msg = f"prevResult lists no other end of the pod's {call.request.ifname} on the node"
        raise CniError(INVALID_CONFIG, msg, "bandwidth must come after a plugin that makes pairs")
    return link


def delete(call: Call) -> None:
    """Take the limits away; also where the record is lost, by the device's mark."""
    from cni_plugin import pieces
    from kernel.netlink.socket import open_netlink

    pieces.delete(plan_piece, _NAME, call)
    with open_netlink() as nl:
        _delete_ifbs(call, nl, call.owner)


def collect(call: Call) -> None:
    """The same for attachments that the runtime does not list."""
    from cni_plugin import pieces
    from cni_plugin.removal import NodeLinks
    from kernel.netlink.socket import open_netlink

    pieces.collect(plan_piece, _NAME, call)
    network, valid = call.conf.name, call.conf.valid_attachments
    if valid is None:
        return
    with open_netlink() as nl:
        for owner in NodeLinks(nl).limited:
            if owner.network == network and owner not in valid:
                _delete_ifbs(call, nl, owner)


def _delete_ifbs(call: Call, nl: Netlink, owner: Owner) -> None:
    from cni_plugin.removal import links_besides

    names = links_besides(nl, owner, None)
    if names:
        call.host.delete_links(nl, names)
