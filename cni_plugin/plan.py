"""(request, configuration, addresses) to a Plan and the result that goes with it; pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from cni_plugin.config import NetConf
from cni_plugin.errors import INVALID_CONFIG, CniError
from cni_plugin.plan_bridge import plan_bridge
from cni_plugin.plan_parts import versions, with_gateways
from cni_plugin.plan_ptp import plan_ptp
from cni_plugin.request import Request
from cni_plugin.result import Interface, Result
from cni_plugin.shape import Shape
from ipam.transaction import Owner
from kernel.model import Plan

_ETHERNET_MTU = 1500  # bytes; for a node without a default route
_IPV6_MTU_MIN = 1280


def plan_attachment(
    request: Request,
    conf: NetConf,
    shape: Shape,
    ipam: Result,
    uplink_mtu: int | None,
    bridge_mtu: int | None = None,
) -> tuple[Plan, Result]:
    """What the attachment gets, and the result to return; the bridge's MAC is not known yet.

    bridge_mtu: that the bridge was given, if it is there. Raises code 7 for an MTU that the
    addresses exclude, and for a route's next hop out of reach.
    """
    mtu, whose = _choose_mtu(conf, shape, uplink_mtu, bridge_mtu)
    if mtu < _IPV6_MTU_MIN and 6 in versions(ipam):
        msg = f"{whose} {mtu} is below {_IPV6_MTU_MIN}, the least for IPv6 (RFC 8200 section 5)"
        raise CniError(INVALID_CONFIG, msg, "set mtu, or leave out the IPv6 ranges")
    ipam = _without_unspecified(ipam)
    _check_next_hops(ipam)
    if shape.mode == "ptp":
        planned = plan_ptp(request, conf, shape, with_gateways(ipam), mtu)
    else:
        planned = plan_bridge(request, conf, shape, ipam, mtu)
    limits = conf.features.get("bandwidth") if shape.native else None
    return _limited(limits, request, conf.name, *planned) if limits else planned


def _choose_mtu(
    conf: NetConf, shape: Shape, uplink: int | None, bridge: int | None
) -> tuple[int, str]:
    """The MTU of the pod's link, and whose it is, to begin a sentence with.

    Between ports of a bridge nothing makes packets smaller: what is larger than a port's MTU gets
    lost. A port with less than the bridge's lowers that (net/bridge/br_if.c, br_mtu_auto_adjust),
    which is podwire's to do only where it routes between the bridge and the uplink.
    """
    if conf.mtu:
        return conf.mtu, "mtu:"
    mtu = uplink or _ETHERNET_MTU
    if bridge and (not shape.gateway or bridge < mtu):
        return bridge, f"the MTU of bridge {conf.bridge},"
    return mtu, "the MTU of the default route's link,"


def _limited(
    limits: object, request: Request, network: str, plan: Plan, result: Result
) -> tuple[Plan, Result]:
    """The same with limits of what the pod receives and sends."""
    from cni_plugin.plugins.bandwidth import Bandwidth, plan_limits  # few attachments have limits

    assert isinstance(limits, Bandwidth)  # noqa: S101 - the feature of that name
    owner = Owner(network, request.container_id, request.ifname)
    host = plan.node.links[0]
    piece = plan_limits(limits, owner, host)
    node = replace(
        plan.node, links=(host, *piece.links), buckets=piece.buckets, redirects=piece.redirects
    )
    more = (Interface(link.name, link.mac or "") for link in piece.links)
    result = replace(result, interfaces=(*result.interfaces, *more))
    return replace(plan, node=node), result


def _without_unspecified(ipam: Result) -> Result:
    """The same; some IPAM plugins write 0.0.0.0 for no gateway."""
    if not any(ip.gateway and ip.gateway.is_unspecified for ip in ipam.ips):
        return ipam
    ips = (
        ip if ip.gateway and not ip.gateway.is_unspecified else replace(ip, gateway=None)
        for ip in ipam.ips
    )
    return replace(ipam, ips=tuple(ips))


def _check_next_hops(ipam: Result) -> None:
    """Refuse a next hop that the kernel would, for being in no subnet of the link."""
    reached = [ip.address.network for ip in ipam.ips]
    reached += [ip_network(ip.gateway) for ip in ipam.ips if ip.gateway]
    reached += [route.dst for route in ipam.routes if route.gw and route.gw.is_unspecified]
    for route in ipam.routes:
        gw = route.gw
        if gw is None or gw.is_unspecified or gw.is_link_local or any(gw in n for n in reached):
            continue
        msg = f"ipam.routes: the next hop {gw} of {route.dst} is in no subnet of the pod's"
        subnets = ", ".join(str(ip.address.network) for ip in ipam.ips)
        raise CniError(INVALID_CONFIG, msg, f"its subnets: {subnets}")
