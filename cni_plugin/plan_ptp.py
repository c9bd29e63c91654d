"""The plan of a routed pair: the node's end is the pod's gateway; pure."""

from __future__ import annotations

from dataclasses import replace

from cni_plugin.config import NetConf
from cni_plugin.plan_parts import (
    arp_sysctls,
    forwarding_sysctls,
    hairpins,
    ipam_routes,
    link_sysctls,
    list_interfaces,
    masqueraded_prefixes,
    plan_pair,
    plan_ports,
    pod_addresses,
    pod_space,
    render_result,
    routed_sysctls,
    single,
    source_checks,
    unique,
    unique_gateways,
)
from cni_plugin.request import Request
from cni_plugin.result import Result
from cni_plugin.shape import Shape
from kernel.model import (
    RTPROT_PODWIRE,
    SCOPE_HOST,
    SCOPE_LINK,
    Address,
    IPAddress,
    IPInterface,
    Neighbour,
    Plan,
    Route,
    Space,
)


def plan_ptp(
    request: Request, conf: NetConf, shape: Shape, ipam: Result, mtu: int
) -> tuple[Plan, Result]:
    """A routed pair with the addresses, and the result."""
    host, pod = plan_pair(request, conf, shape, ipam, mtu, None)
    ports, port_settings = plan_ports(conf, host.name, ipam)
    node = Space(
        links=(host,),
        addresses=tuple(Address(host.name, single(g)) for g in unique_gateways(ipam)),
        routes=tuple(
            Route(
                single(ip.address.ip).network, host.name, scope=SCOPE_HOST, protocol=RTPROT_PODWIRE
            )
            for ip in ipam.ips
        ),
        sysctls=(
            *routed_sysctls(host.name, ipam),
            *arp_sysctls(host.name, ipam),
            *link_sysctls(host),
            *port_settings,
            *forwarding_sysctls(ipam),
        ),
    )
    inner = pod_addresses(pod.name, ipam, conf, prefix_route=False)
    gateways = ((ip.address, ip.gateway) for ip in ipam.ips if ip.gateway)
    routes = tuple(r for address, via in gateways for r in _ptp_routes(pod.name, address, via))
    behind = _next_hops_behind(ipam)
    more = (replace(r, onlink=r.via in behind) for r in ipam_routes(pod.name, ipam))
    space = replace(
        pod_space(pod, inner, unique((*routes, *more)), ipam, conf),
        neighbours=tuple(Neighbour(pod.name, address, host.mac or "") for address in behind),
    )
    elements = hairpins(shape, host.name, ipam)
    elements += ports + source_checks(conf, shape, ipam, host, pod)
    plan = Plan(node, space, None, unique(elements), masqueraded_prefixes(conf, ipam))
    return plan, render_result(list_interfaces(host, pod, request), conf, ipam)


def _next_hops_behind(ipam: Result) -> list[IPAddress]:
    """Next hops of IPAM's routes that are the node's only to forward to.

    Nobody answers for them on a point-to-point link, so they get the MAC of the node's end.
    """
    gateways = unique_gateways(ipam)
    found = (r.gw for r in ipam.routes if r.gw and r.gw not in gateways)
    return list(dict.fromkeys(a for a in found if not (a.is_unspecified or a.is_link_local)))


def _ptp_routes(link: str, address: IPInterface, gateway: IPAddress) -> list[Route]:
    """The route to the gateway, and through it to the rest of the subnet.

    Everything but the gateway is behind it: the pair is a point-to-point link, though veth has no
    IFF_POINTOPOINT.
    """
    routes = [Route(single(gateway).network, link, src=address.ip, scope=SCOPE_LINK)]
    if address.network.prefixlen < address.max_prefixlen:
        routes.append(Route(address.network, link, via=gateway, src=address.ip))
    return routes
