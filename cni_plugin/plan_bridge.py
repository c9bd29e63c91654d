"""The plan of a port of a bridge; pure."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from cni_plugin.config import NetConf
from cni_plugin.plan_parts import (
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
    source_checks,
    unique,
    with_gateways,
)
from cni_plugin.request import Request
from cni_plugin.result import Interface, Result
from cni_plugin.shape import Shape
from ipam.json_section import CniRoute
from ipam.ranges import interface_of
from kernel.model import (
    TABLE_MAIN,
    Bridge,
    Element,
    IPInterface,
    Link,
    Plan,
    Port,
    Space,
)
from kernel.nftables.spoof_check import spoof_check_elements

_DEFAULT_ROUTE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_MAIN = (None, 0, TABLE_MAIN)  # a route's table where it is the main one


def plan_bridge(
    request: Request, conf: NetConf, shape: Shape, ipam: Result, mtu: int
) -> tuple[Plan, Result]:
    """A port of the bridge, the bridge with its gateways, and the result."""
    ipam = with_gateways(ipam) if shape.gateway else ipam
    if conf.is_default_gateway:
        ipam = _with_default_routes(ipam)
    port = Port(conf.bridge, hairpin=shape.hairpin, isolated=conf.port_isolation)
    host, pod = plan_pair(request, conf, shape, ipam, mtu, port)
    settings = link_sysctls(host) + (forwarding_sysctls(ipam) if shape.gateway else ())
    ports, port_settings = plan_ports(conf, conf.bridge, ipam)
    node = Space(links=(host,), sysctls=settings + port_settings)
    inner = pod_addresses(pod.name, ipam, conf)
    space = pod_space(pod, inner, unique(ipam_routes(pod.name, ipam)), ipam, conf)
    bridge = Bridge(
        conf.bridge,
        mtu=host.mtu,
        promisc=conf.promisc_mode,
        gateways=_bridge_gateways(ipam) if shape.gateway else (),
        force_address=conf.force_address,
        sysctls=routed_sysctls(conf.bridge, ipam) if shape.gateway else (),
    )
    elements = unique(_bridge_elements(conf, shape, ipam, host, pod) + ports)
    plan = Plan(node, space, bridge, elements, masqueraded_prefixes(conf, ipam))
    interfaces = Interface(conf.bridge), *list_interfaces(host, pod, request)
    return plan, render_result(interfaces, conf, ipam)


def _bridge_elements(
    conf: NetConf, shape: Shape, ipam: Result, host: Link, pod: Link
) -> tuple[Element, ...]:
    elements = hairpins(shape, conf.bridge, ipam)
    if shape.mac_check and pod.mac:
        elements += spoof_check_elements(host.name, pod.mac)
    return elements + source_checks(conf, shape, ipam, host, pod)


def _with_default_routes(ipam: Result) -> Result:
    routes = list(ipam.routes)
    for ip in ipam.ips:
        default = _DEFAULT_ROUTE[ip.address.version]
        if not any(r.dst == default and r.table in _MAIN for r in routes):
            routes.append(CniRoute(default, ip.gateway))
    return replace(ipam, routes=tuple(routes))


def _bridge_gateways(ipam: Result) -> tuple[IPInterface, ...]:
    found = tuple(
        interface_of(ip.gateway, ip.address.network.prefixlen) for ip in ipam.ips if ip.gateway
    )
    return unique(found)
