"""Bridges: created once per node and kept."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

from kernel.diff import compare
from kernel.errors import KernelError
from kernel.model import RTPROT_PODWIRE, Address, Bridge, IPInterface, IPNetwork, Link
from kernel.netlink import links
from kernel.netlink.socket import Netlink
from kernel.read import read_addresses, read_connected, read_link, read_links
from kernel.sysctl import apply_sysctl, prepare_own_link, read_sysctl

_IPV6_MTU = 1280  # bytes
IsUsed = Callable[[IPInterface], bool]
"""Whether an attachment of the node has this gateway."""
Users = Callable[[], AbstractContextManager[IsUsed]]
"""While it is entered, no attachment begins to use a gateway that none has."""


@contextmanager
def no_users() -> Iterator[IsUsed]:
    """The bridge has no attachment."""
    yield lambda _gateway: False


def ensure_bridge(
    nl: Netlink,
    desired: Bridge,
    made: Callable[[str], object] = str,
    link: Link | None = None,
    users: Users = no_users,
) -> Link:
    """The bridge, created where it is missing; up, promiscuous if desired, its gateways on it.

    Gateways that podwire gave it, that are not desired and that no attachment has are removed.
    made: called with its name before one is made. link: as it was just found. Raises KernelError
    where the name belongs to another kind of link, where another's address contradicts a gateway
    and force_address is off, and where another link has a gateway's subnet.
    """
    link = link or read_link(nl, desired.name)
    if link is None:
        _refuse_rivals(nl, desired.name, desired.gateways)
        made(desired.name)
        _create(desired)
        prepare_own_link(desired.name)
        link = read_link(nl, desired.name)
    link = _require_bridge(desired, link)
    present = _read_gateways(nl, desired, link)
    if _is_settled(present, desired):
        _apply_settings(nl, desired)
        _set_flags(nl, desired, link)
        return link
    with users() as is_used:
        # Whether all gateways can be had is known before anything is touched.
        missing, obsolete = _plan_gateways(nl, desired, present, is_used)
        _apply_settings(nl, desired)
        _set_flags(nl, desired, link)
        _change_gateways(nl, link, missing, obsolete)
    return link


def check_bridge(nl: Netlink, desired: Bridge, is_used: IsUsed) -> None:
    """Raise the error with which `ensure_bridge` would fail; changes nothing."""
    link = read_link(nl, desired.name)
    if link is None:
        _refuse_rivals(nl, desired.name, desired.gateways)
    else:
        link = _require_bridge(desired, link)
        _plan_gateways(nl, desired, _read_gateways(nl, desired, link), is_used)


def _apply_settings(nl: Netlink, desired: Bridge) -> None:
    missing = [s for s in desired.sysctls if read_sysctl(s.path) != s.value]
    # By message where one carries it: /proc/sys may be read-only. Of IPv6 only on a link that is
    # down: one that is up makes its link-local address when the setting is written
    # (net/ipv6/addrconf.c, addrconf_sysctl_addr_gen_mode).
    carried = [s for s in missing if s.path.startswith("net/ipv4/") and links.carries(s)]
    if carried:
        nl.run([links.set_traits(Link(desired.name), settings=carried)])
    for setting in missing:
        apply_sysctl(setting)


def _require_bridge(desired: Bridge, link: Link | None) -> Link:
    if link is None or link.kind != "bridge":
        raise KernelError("use bridge", desired.name, 0, "a link of that name is not a bridge")
    if link.name != desired.name:  # the kernel takes both, our rules and settings do not
        hint = f"that is an alternative name of {link.name}: use {link.name}"
        raise KernelError("use bridge", desired.name, 0, hint)
    if any(gateway.version == 6 for gateway in desired.gateways) and (link.mtu or 0) < _IPV6_MTU:
        hint = f"it has an MTU of {link.mtu}, and IPv6 needs {_IPV6_MTU} (RFC 8200 section 5)"
        raise KernelError("give IPv6 gateways to bridge", desired.name, 0, hint)
    return link


def _read_gateways(nl: Netlink, desired: Bridge, link: Link) -> tuple[Address, ...]:
    """The addresses of the bridge; none where none matter."""
    return read_addresses(nl, [link]) if desired.gateways else ()


def _set_flags(nl: Netlink, desired: Bridge, link: Link) -> None:
    if compare(Link(desired.name, "bridge", promisc=desired.promisc), link):
        flags = links.IFF_UP | (links.IFF_PROMISC if desired.promisc else 0)
        nl.run([links.set_flags(desired.name, flags)])


def remove_unused_bridge(nl: Netlink, name: str) -> None:
    """Remove a bridge without ports; one that has some, or is gone, is left alone.

    The caller makes sure that no other call is about to add a port.
    """
    if not any(link.port and link.port.bridge == name for link in read_links(nl)):
        nl.run([links.delete_link(name)], tolerate=links.GONE)


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


def _is_settled(present: Iterable[Address], desired: Bridge) -> bool:
    """Whether the gateways are there, and none of podwire's beyond them."""
    there = {a.address for a in present}
    ours = {a.address for a in present if a.protocol == RTPROT_PODWIRE}
    return not desired.gateways or ours <= set(desired.gateways) <= there


def _plan_gateways(
    nl: Netlink, desired: Bridge, present: Iterable[Address], is_used: IsUsed
) -> tuple[list[IPInterface], set[IPInterface]]:
    """What the bridge's addresses lack of the gateways, and have too many.

    Raises KernelError where a gateway cannot be had.
    """
    others = {a.address: a for a in present if a.address not in desired.gateways}
    used = {address for address in others if is_used(address)}
    obsolete = {a for a in others if others[a].protocol == RTPROT_PODWIRE} - used
    there = {a.address for a in present}
    missing = [gateway for gateway in desired.gateways if gateway not in there]
    for gateway in missing:
        contrary = [a for a in others.keys() - used - obsolete if _contradicts(a, gateway)]
        if contrary and not desired.force_address:
            hint = f"it has {contrary[0]} already; set forceAddress to replace that"
            raise KernelError(f"give address {gateway} to bridge", desired.name, 0, hint)
        obsolete.update(contrary)
    _refuse_rivals(nl, desired.name, missing)
    # With a primary IPv4 address go the others of its subnet (net/ipv4/devinet.c, inet_del_ifa).
    kept = [a for a in (*there & {*desired.gateways}, *used) if _shares_subnet(a, obsolete)]
    return [*missing, *kept], obsolete


def _contradicts(present: IPInterface, gateway: IPInterface) -> bool:
    # Of others, IPv4 has one address per bridge, IPv6 several whose subnets do not overlap.
    # Link-local ones are nobody's network: of IPv4, a DHCP client may have added one (RFC 3927).
    if present.version != gateway.version or present.is_link_local:
        return False
    return gateway.version == 4 or present.network.overlaps(gateway.network)


def _shares_subnet(address: IPInterface, others: Iterable[IPInterface]) -> bool:
    return any(o.version == address.version and o.network == address.network for o in others)


def _refuse_rivals(nl: Netlink, bridge: str, gateways: Iterable[IPInterface]) -> None:
    """Raise KernelError where another link has the subnet of a gateway, or a part of it.

    Packets to pods would leave by that link.
    """
    subnets = [(gateway, gateway.network) for gateway in gateways]
    routes = read_connected(nl, {gateway.version for gateway, _subnet in subnets})
    for gateway, subnet in subnets:
        for route in routes:
            if route.link != bridge and _is_within(route.dst, subnet):
                hint = (
                    f"link {route.link} has {route.dst}, where packets to pods would go:"
                    " use another subnet, or remove that one"
                )
                raise KernelError(f"give address {gateway} to bridge", bridge, 0, hint)


def _is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    same = inner.version == outer.version and inner.prefixlen >= outer.prefixlen
    return same and inner.network_address in outer


def _change_gateways(
    nl: Netlink, link: Link, missing: Iterable[IPInterface], obsolete: Iterable[IPInterface]
) -> None:
    messages = [links.delete_address(Address(link.name, a), link.index) for a in obsolete]
    messages += [
        links.add_address(Address(link.name, gateway, protocol=RTPROT_PODWIRE), link.index)
        for gateway in missing
    ]
    # A bridge that podwire did not create may have no MAC of its own: setting the one that it has
    # makes it so.
    fresh = read_link(nl, link.name)
    if fresh and fresh.mac:
        messages.append(links.set_mac(link.name, fresh.mac))
    nl.run(messages, tolerate=frozenset({errno.EEXIST, errno.EADDRNOTAVAIL}))
