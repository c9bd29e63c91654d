"""Bridges: created once per node and kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from kernel.diff import compare
from kernel.errors import KernelError
from kernel.model import Address, Bridge, IPInterface, Link
from kernel.netlink import links
from kernel.netlink.socket import Netlink
from kernel.read import read_addresses, read_link, read_links
from kernel.sysctl import prepare_own_link


def ensure_bridge(
    nl: Netlink, desired: Bridge, made: Callable[[str], object] = str, link: Link | None = None
) -> Link:
    """The bridge, created where it is missing; up, promiscuous if desired, its gateways on it.

    made: called with its name before one is made. link: as it was just found. Raises KernelError
    where the name belongs to another kind of link, and where an address that is there already
    contradicts a gateway and force_address is off.
    """
    link = link or read_link(nl, desired.name)
    if link is None:
        made(desired.name)
        _create(desired)
        prepare_own_link(desired.name)
        link = read_link(nl, desired.name)
    if link is None or link.kind != "bridge":
        raise KernelError("use bridge", desired.name, 0, "a link of that name is not a bridge")
    # Whether all gateways can be had is known before the first one is touched.
    present = [a.address for a in read_addresses(nl, [link])] if desired.gateways else []
    replacements = _plan_gateways(present, desired)
    if compare(Link(desired.name, "bridge", promisc=desired.promisc), link):
        flags = links.IFF_UP | (links.IFF_PROMISC if desired.promisc else 0)
        nl.run([links.set_flags(desired.name, flags)])
    for gateway, others in replacements:
        _replace_gateway(nl, link, gateway, others)
    return link


def remove_unused_bridge(nl: Netlink, name: str) -> None:
    """Remove a bridge without ports; one that has some, or is gone, is left alone.

    The caller makes sure that no other call is about to add a port.
    """
    if not any(link.port and link.port.bridge == name for link in read_links(nl)):
        nl.run([links.delete_link(name)], tolerate=frozenset({errno.ENODEV}))


def _create(desired: Bridge) -> None:
    # Imported here: it costs 150 ms, and most calls find the bridge in place.
    from pyroute2 import IPRoute, NetlinkError  # type: ignore[import-untyped]

    # With a MAC of its own: a bridge without one takes its lowest port's, and pods would lose
    # their gateway when that port goes (net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id).
    options: dict[str, object] = {"address": _random_mac()}
    if desired.mtu:
        options["mtu"] = desired.mtu
    try:
        with IPRoute() as ipr:
            ipr.link("add", ifname=desired.name, kind="bridge", **options)
    except NetlinkError as error:
        if error.code != errno.EEXIST:  # another call created it meanwhile
            raise KernelError("create bridge", desired.name, error.code or 0) from error


def _random_mac() -> str:
    raw = bytearray(os.urandom(6))
    raw[0] = raw[0] & 0xFC | 0x02  # locally administered, one interface's
    return raw.hex(":")


def _plan_gateways(
    present: list[IPInterface], desired: Bridge
) -> list[tuple[IPInterface, list[IPInterface]]]:
    """Each gateway that is missing, with the addresses that must go for it."""
    plan = []
    for gateway in desired.gateways:
        if gateway in present:
            continue
        others = [a for a in present if a.version == gateway.version and _contradicts(a, gateway)]
        if others and not desired.force_address:
            hint = f"it has {others[0]} already; set forceAddress to replace that"
            raise KernelError(f"give address {gateway} to bridge", desired.name, 0, hint)
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
    # A bridge that podwire did not create may have no MAC of its own: setting the one that it has
    # makes it so.
    fresh = read_link(nl, link.name)
    if fresh and fresh.mac:
        messages.append(links.set_mac(link.name, fresh.mac))
    nl.run(messages, tolerate=frozenset({errno.EEXIST, errno.EADDRNOTAVAIL}))
