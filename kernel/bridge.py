"""Bridges: made once per node and kept, through pyroute2."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from kernel.errors import KernelError
from kernel.model import Address, Bridge, IPInterface, Link, Sysctl
from kernel.netlink import links
from kernel.netlink.socket import Netlink
from kernel.read import read_addresses, read_link, read_links
from kernel.sysctl import apply_sysctl

# We own the routes of this link: no router may announce others. And its link-local address must
# serve at once: without it the node forwards no IPv6 to pods.
_SETTINGS = ("accept_ra", "accept_dad")


def ensure_bridge(
    nl: Netlink, want: Bridge, made: Callable[[str], object] = str, link: Link | None = None
) -> Link:
    """The bridge, made where it is missing; up, promiscuous if wanted, its gateways on it.

    made: called with its name before one is made. link: as it was just found. Raises KernelError
    where the name belongs to another kind of link, and where an address that is there already
    contradicts a gateway and force_address is off.
    """
    link = link or read_link(nl, want.name)
    if link is None:
        made(want.name)
        _create(want)
        for setting in _SETTINGS:
            apply_sysctl(Sysctl(f"net/ipv6/conf/{want.name}/{setting}", "0", required=False))
        link = read_link(nl, want.name)
    if link is None or link.kind != "bridge":
        raise KernelError("use bridge", want.name, 0, "a link of that name is not a bridge")
    # Whether all gateways can be had is known before the first one is touched.
    present = [a.address for a in read_addresses(nl, [link])] if want.gateways else []
    replacements = _plan_gateways(present, want)
    if not link.up or (want.promisc and not link.promisc):
        flags = links.IFF_UP | (links.IFF_PROMISC if want.promisc else 0)
        nl.run([links.set_flags(want.name, flags)])
    for gateway, others in replacements:
        _replace_gateway(nl, link, gateway, others)
    return link


def remove_unused_bridge(nl: Netlink, name: str) -> None:
    """Remove a bridge without ports; one that has some, or is gone, is left alone.

    The caller sees to it that nobody is about to add a port.
    """
    if not any(link.port and link.port.bridge == name for link in read_links(nl)):
        nl.run([links.delete_link(name)], tolerate=frozenset({errno.ENODEV}))


def _create(want: Bridge) -> None:
    # Imported here: it costs 150 ms, and most calls find the bridge in place.
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]

    # With a MAC of its own: a bridge without one takes its lowest port's, and pods would lose
    # their gateway when that port goes (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id).
    options: dict[str, object] = {"address": _random_mac()}
    if want.mtu:
        options["mtu"] = want.mtu
    try:
        with IPRoute() as ipr:
            ipr.link("add", ifname=want.name, kind="bridge", **options)
    except NetlinkError as error:
        if error.code != errno.EEXIST:  # made by somebody else in between
            raise KernelError("create bridge", want.name, error.code or 0) from error


def _random_mac() -> str:
    raw = bytearray(os.urandom(6))
    raw[0] = raw[0] & 0xFC | 0x02  # locally administered, one interface's
    return raw.hex(":")


def _plan_gateways(
    present: list[IPInterface], want: Bridge
) -> list[tuple[IPInterface, list[IPInterface]]]:
    """Each gateway that is missing, with the addresses that must go for it."""
    plan = []
    for gateway in want.gateways:
        if gateway in present:
            continue
        others = [a for a in present if a.version == gateway.version and _contradicts(a, gateway)]
        if others and not want.force_address:
            hint = f"it has {others[0]} already; set forceAddress to replace that"
            raise KernelError(f"give address {gateway} to bridge", want.name, 0, hint)
        present = [*(a for a in present if a not in others), gateway]
        plan.append((gateway, others))
    return plan


def _contradicts(present: IPInterface, gateway: IPInterface) -> bool:
    # IPv4 has one address per bridge; IPv6 may have several whose subnets do not overlap.
    return gateway.version == 4 or present.network.overlaps(gateway.network)


def _replace_gateway(
    nl: Netlink, link: Link, gateway: IPInterface, others: list[IPInterface]
) -> None:
    messages = [links.delete_address(Address(link.name, a), link.index) for a in others]
    messages.append(links.add_address(Address(link.name, gateway), link.index))
    # A bridge that somebody else made may have no MAC of its own: setting the one that it has
    # makes it so.
    fresh = read_link(nl, link.name)
    if fresh and fresh.mac:
        messages.append(links.set_mac(link.name, fresh.mac))
    nl.run(messages, tolerate=frozenset({errno.EEXIST, errno.EADDRNOTAVAIL}))
