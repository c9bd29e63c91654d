"""(request, configuration, addresses) to a Plan and the result that goes with it; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import TypeVar

from cni_plugin.config import NetConf
from cni_plugin.errors import INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from cni_plugin.names import Mark, host_link_name, link_local, node_mac, pod_mac, render_alias
from cni_plugin.plugins.portmap import plan_port_mappings
from cni_plugin.request import Request
from cni_plugin.result import Interface, IPConfig, Result, ResultRoute, render_dns
from ipam.ranges import interface_of
from ipam.transaction import Owner
from kernel.model import (
    RTPROT_PODWIRE,
    SCOPE_HOST,
    SCOPE_LINK,
    TABLE_MAIN,
    Address,
    Bridge,
    Element,
    IPAddress,
    IPInterface,
    IPNetwork,
    Link,
    Neighbour,
    Plan,
    Port,
    Route,
    Space,
    Sysctl,
)
from kernel.nftables.masquerade import hairpin_element
from kernel.nftables.spoof_check import source_check_elements, spoof_check_elements

T = TypeVar("T")
_DEFAULT_ROUTE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}
_IPV6_MTU_MIN = 1280
_ETHERNET_MTU = 1500  # bytes; for a node without a default route
# The kernel asks the link that a packet came in by whether to forward IPv4 (ip_route_input_slow),
# and asks for IPv6 neighbours from the link's link-local address, which addr_gen_mode 1 leaves out.
_ROUTED = {4: (("forwarding", "1"),), 6: (("disable_ipv6", "0"), ("addr_gen_mode", "0"))}
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


@dataclass(frozen=True, slots=True)
class Shape:
    """How this configuration wires: mode, and what the drop-in names default to.

    hairpin: whether a port sends back to where a packet came from. masquerade_hairpin: whether a
    pod's connections to itself are masqueraded, for which the kernel tracks all connections.
    source_check: whether the pod is held to its addresses; mac_check: to its MAC, on a bridge.
    delegate: the IPAM plugin that gives the addresses; empty for podwire's own. native: whether it
    is podwire under its own name, with the features that are plugins of their own elsewhere.
    """

    mode: str
    hairpin: bool
    masquerade_hairpin: bool
    gateway: bool
    source_check: bool
    mac_check: bool
    delegate: str = ""
    native: bool = False


def shape_of(conf: NetConf, program: str, delegate: str = "") -> Shape:
    """The mode and its defaults. program: the name that podwire was started under.

    As `bridge` or `ptp` podwire is that plugin, with its defaults; as itself it wires routed pairs
    unless configured otherwise, lets pods reach themselves through a service, and lets them send
    from their own addresses only. Whoever translates a service's address masquerades these
    connections, too (kube-proxy, portmap); podwire does where it masquerades anyway, or is asked.
    """
    drop_in = next((name for name in (program, conf.type) if name in ("bridge", "ptp")), None)
    mode = drop_in or conf.mode or "ptp"
    gateway = conf.is_gateway or conf.is_default_gateway
    hairpin = conf.hairpin_mode
    if hairpin is None:
        hairpin = drop_in is None and not conf.promisc_mode
    asked = conf.ip_masq if conf.hairpin_mode is None else conf.hairpin_mode
    masquerade = asked and (mode == "ptp" or (hairpin and gateway))
    checked = drop_in is None if conf.source_check is None else conf.source_check
    checked = checked and conf.uses_ipam  # else its addresses are not known
    mac = checked and drop_in is None if conf.mac_spoof_check is None else conf.mac_spoof_check
    return Shape(mode, hairpin, masquerade, gateway, checked, mac, delegate, native=drop_in is None)


def plan_attachment(
    request: Request, conf: NetConf, shape: Shape, ipam: Result, uplink_mtu: int | None
) -> tuple[Plan, Result]:
    """What the attachment gets, and the result to return; the bridge's MAC is not known yet.

    Raises code 7 for an MTU that the addresses exclude, and for a route's next hop out of reach.
    """
    mtu = conf.mtu or uplink_mtu or _ETHERNET_MTU
    if mtu < _IPV6_MTU_MIN and 6 in _versions(ipam):
        whose = "mtu:" if conf.mtu else "the MTU of the default route's link,"
        msg = f"{whose} {mtu} is below {_IPV6_MTU_MIN}, the least for IPv6 (RFC 8200 section 5)"
        raise CniError(INVALID_CONFIG, msg, "set mtu, or leave out the IPv6 ranges")
    ipam = _without_unspecified(ipam)
    _check_next_hops(ipam)
    if shape.mode == "ptp":
        planned = _plan_ptp(request, conf, shape, _with_gateways(ipam), uplink_mtu)
    else:
        planned = _plan_bridge(request, conf, shape, ipam, uplink_mtu)
    limits = conf.features.get("bandwidth") if shape.native else None
    return _limited(limits, request, conf.name, *planned) if limits else planned


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


def _with_gateways(ipam: Result) -> Result:
    """Each address with a gateway: the subnet's first address where IPAM named none."""
    if all(ip.gateway for ip in ipam.ips):
        return ipam
    ips = tuple(IPConfig(ip.address, ip.gateway or _first_address(ip)) for ip in ipam.ips)
    return replace(ipam, ips=ips)


def _first_address(ip: IPConfig) -> IPAddress:
    return ip.address.network.network_address + 1


def _plan_ptp(
    request: Request, conf: NetConf, shape: Shape, ipam: Result, uplink_mtu: int | None
) -> tuple[Plan, Result]:
    host, pod = _pair(request, conf, shape, ipam, uplink_mtu, None)
    ports, port_settings = _plan_ports(conf, host.name, ipam)
    node = Space(
        links=(host,),
        addresses=tuple(Address(host.name, _single(g)) for g in _unique_gateways(ipam)),
        routes=tuple(
            Route(
                _single(ip.address.ip).network, host.name, scope=SCOPE_HOST, protocol=RTPROT_PODWIRE
            )
            for ip in ipam.ips
        ),
        sysctls=(
            *_routed_sysctls(host.name, ipam),
            *_arp_sysctls(host.name, ipam),
            *_link_sysctls(host),
            *port_settings,
            *_forwarding_sysctls(ipam),
        ),
    )
    inner = tuple(Address(pod.name, ip.address, prefix_route=False) for ip in ipam.ips)
    routes = tuple(r for ip in ipam.ips for r in _ptp_routes(pod.name, ip))
    behind = _next_hops_behind(ipam)
    more = (replace(r, onlink=r.via in behind) for r in _ipam_routes(pod.name, ipam))
    space = replace(
        _pod_space(pod, inner, _unique((*routes, *more)), ipam, conf),
        neighbours=tuple(Neighbour(pod.name, address, host.mac or "") for address in behind),
    )
    elements = _hairpins(shape, host.name, ipam)
    elements += ports + _source_checks(conf, shape, ipam, host, pod)
    plan = Plan(node, space, None, _unique(elements), _masquerade(conf, ipam))
    return plan, _result(_interfaces(host, pod, request), conf, ipam)


def _next_hops_behind(ipam: Result) -> list[IPAddress]:
    """Next hops of IPAM's routes that are the node's only to forward to.

    Nobody answers for them on a point-to-point link, so they get the MAC of the node's end.
    """
    gateways = _unique_gateways(ipam)
    found = (r.gw for r in ipam.routes if r.gw and r.gw not in gateways)
    return list(dict.fromkeys(a for a in found if not (a.is_unspecified or a.is_link_local)))


def _ptp_routes(link: str, ip: IPConfig) -> list[Route]:
    """The route to the gateway, and through it to the rest of the subnet.

    Everything but the gateway is behind it: the pair is a point-to-point link, though veth has no
    IFF_POINTOPOINT.
    """
    address, gateway = ip.address, ip.gateway or _first_address(ip)
    routes = [Route(_single(gateway).network, link, src=address.ip, scope=SCOPE_LINK)]
    if address.network.prefixlen < address.max_prefixlen:
        routes.append(Route(address.network, link, via=gateway, src=address.ip))
    return routes


def _plan_bridge(
    request: Request, conf: NetConf, shape: Shape, ipam: Result, uplink_mtu: int | None
) -> tuple[Plan, Result]:
    ipam = _with_gateways(ipam) if shape.gateway else ipam
    if conf.is_default_gateway:
        ipam = _with_default_routes(ipam)
    port = Port(conf.bridge, hairpin=shape.hairpin, isolated=conf.port_isolation)
    host, pod = _pair(request, conf, shape, ipam, uplink_mtu, port)
    settings = _link_sysctls(host) + (_forwarding_sysctls(ipam) if shape.gateway else ())
    ports, port_settings = _plan_ports(conf, conf.bridge, ipam)
    node = Space(links=(host,), sysctls=settings + port_settings)
    inner = tuple(Address(pod.name, ip.address) for ip in ipam.ips)
    space = _pod_space(pod, inner, _unique(_ipam_routes(pod.name, ipam)), ipam, conf)
    bridge = Bridge(
        conf.bridge,
        mtu=host.mtu,
        promisc=conf.promisc_mode,
        gateways=_bridge_gateways(ipam) if shape.gateway else (),
        force_address=conf.force_address,
        sysctls=_routed_sysctls(conf.bridge, ipam) if shape.gateway else (),
    )
    elements = _unique(_bridge_elements(conf, shape, ipam, host, pod) + ports)
    plan = Plan(node, space, bridge, elements, _masquerade(conf, ipam))
    interfaces = Interface(conf.bridge), *_interfaces(host, pod, request)
    return plan, _result(interfaces, conf, ipam)


def _plan_ports(
    conf: NetConf, link: str, ipam: Result
) -> tuple[tuple[Element, ...], tuple[Sysctl, ...]]:
    if not conf.port_map.mappings:
        return (), ()
    return plan_port_mappings(conf.port_map, link, (ip.address.ip for ip in ipam.ips))


def _bridge_elements(
    conf: NetConf, shape: Shape, ipam: Result, host: Link, pod: Link
) -> tuple[Element, ...]:
    elements = _hairpins(shape, conf.bridge, ipam)
    if shape.mac_check and pod.mac:
        elements += spoof_check_elements(host.name, pod.mac)
    return elements + _source_checks(conf, shape, ipam, host, pod)


def _hairpins(shape: Shape, link: str, ipam: Result) -> tuple[Element, ...]:
    if not shape.masquerade_hairpin:
        return ()
    return tuple(hairpin_element(link, ip.address.ip) for ip in ipam.ips)


def _source_checks(
    conf: NetConf, shape: Shape, ipam: Result, host: Link, pod: Link
) -> tuple[Element, ...]:
    if not shape.source_check or not ipam.ips:
        return ()
    addresses = [ip.address.ip for ip in ipam.ips]
    addresses += [link_local(pod.mac)] if pod.mac else []
    prefixes = conf.allowed_source_prefixes
    return source_check_elements(host.name, addresses, prefixes, bridged=shape.mode == "bridge")


def _with_default_routes(ipam: Result) -> Result:
    routes = list(ipam.routes)
    for ip in ipam.ips:
        default = _DEFAULT_ROUTE[ip.address.version]
        if not any(r.dst == default for r in routes):
            routes.append(ResultRoute(default, ip.gateway))
    return replace(ipam, routes=tuple(routes))


def _bridge_gateways(ipam: Result) -> tuple[IPInterface, ...]:
    found = tuple(
        interface_of(ip.gateway, ip.address.network.prefixlen) for ip in ipam.ips if ip.gateway
    )
    return _unique(found)


def _unique_gateways(ipam: Result) -> tuple[IPAddress, ...]:
    return _unique(tuple(ip.gateway for ip in ipam.ips if ip.gateway))


def _unique(values: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values)) if len(values) > 1 else values


def _single(address: IPAddress) -> IPInterface:
    return interface_of(address, address.max_prefixlen)


def _pair(
    request: Request,
    conf: NetConf,
    shape: Shape,
    ipam: Result,
    uplink_mtu: int | None,
    port: Port | None,
) -> tuple[Link, Link]:
    key = (conf.name, request.container_id, request.ifname)
    name = host_link_name(*key)
    mtu = conf.mtu or uplink_mtu or _ETHERNET_MTU
    addresses = tuple(ip.address for ip in ipam.ips)
    masquerade = bool(conf.ip_masq and addresses)
    rest = shape.delegate, request.pod, masquerade or shape.masquerade_hairpin
    mark = Mark(*key, addresses, masquerade, *rest)
    host = Link(name, mac=node_mac(*key), mtu=mtu, alias=render_alias(mark), port=port)
    pod = Link(
        request.ifname,
        mac=requested_mac(request, conf) or pod_mac(mark),
        mtu=mtu,
        up=not conf.disable_container_interface,
    )
    return host, pod


def requested_mac(request: Request, conf: NetConf) -> str:
    """The MAC that the caller requests; the capability outranks args, args outrank CNI_ARGS.

    Raises code 7 or 4 where it is none that a link can have.
    """
    requested = (
        ("runtimeConfig.mac", conf.runtime_config.mac, INVALID_CONFIG),
        ("args.cni.mac", conf.args_mac, INVALID_CONFIG),
        ("CNI_ARGS MAC", request.args.get("MAC", ""), INVALID_ENVIRONMENT),
    )
    for key, value, code in requested:
        if value:
            return _check_mac(key, value, code)
    return ""


def _check_mac(key: str, value: str, code: int) -> str:
    parts = value.lower().split(":")
    hexadecimal = all(len(p) == 2 and set(p) <= set("0123456789abcdef") for p in parts)
    if len(parts) != 6 or not hexadecimal:
        raise CniError(code, f"{key}: {value[:80]!r} is no MAC address like 02:11:22:33:44:55")
    if int(parts[0], 16) & 1 or set(parts) == {"00"}:
        raise CniError(
            code, f"{key}: {value!r} is no address for one interface (multicast or zero)"
        )
    return ":".join(parts)


def _routed_sysctls(link: str, ipam: Result) -> tuple[Sysctl, ...]:
    """What a link needs to be pods' router, whatever it inherits from conf.default."""
    return tuple(
        Sysctl(f"net/ipv{version}/conf/{link}/{name}", value)
        for version in _versions(ipam)
        for name, value in _ROUTED[version]
    )


def _arp_sysctls(link: str, ipam: Result) -> tuple[Sysctl, ...]:
    # The gateway has a subnet of its own: with 2 the kernel answers no ARP for it.
    return (Sysctl(f"net/ipv4/conf/{link}/arp_ignore", "0"),) if 4 in _versions(ipam) else ()


def _link_sysctls(host: Link) -> tuple[Sysctl, ...]:
    # We own the routes of this link: no router, and no pod playing one, may announce others.
    names = ["accept_ra"]
    if host.port is None:
        # Its link-local address serves at once: without it no IPv6 is forwarded to the pod.
        names.append("accept_dad")
    path = f"net/ipv6/conf/{host.name}"
    return tuple(Sysctl(f"{path}/{name}", "0", required=False) for name in names)


def _forwarding_sysctls(ipam: Result) -> tuple[Sysctl, ...]:
    return tuple(Sysctl(_FORWARDING[v], "1") for v in _versions(ipam))


def _versions(ipam: Result) -> list[int]:
    return sorted({ip.address.version for ip in ipam.ips})


def _pod_space(
    pod: Link,
    addresses: tuple[Address, ...],
    routes: tuple[Route, ...],
    ipam: Result,
    conf: NetConf,
) -> Space:
    name = pod.name
    settings: list[Sysctl] = []
    if any(ip.address.version == 6 for ip in ipam.ips):
        dad = "1" if conf.enable_dad else "0"
        settings += [
            Sysctl("net/ipv6/conf/lo/disable_ipv6", "0", required=False),
            Sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0"),
            Sysctl(f"net/ipv6/conf/{name}/keep_addr_on_down", "1", required=False),
            # Not even for the link-local address: neighbour discovery would wait for it.
            Sysctl(f"net/ipv6/conf/{name}/accept_dad", dad, required=False),
            # The link-local address follows from the MAC: no other one may be used.
            Sysctl(f"net/ipv6/conf/{name}/addr_gen_mode", "0", required=False),
        ]
    return Space((pod,), addresses, routes, tuple(settings))


def _ipam_routes(link: str, ipam: Result) -> tuple[Route, ...]:
    """IPAM's routes; one without a next hop goes through the first gateway of its family.

    0.0.0.0 is the kernel's own word for no next hop: the destination is on the link.
    """
    gateways = {ip.address.version: ip.gateway for ip in reversed(ipam.ips) if ip.gateway}
    return tuple(
        Route(
            r.dst,
            link,
            via=_next_hop(r.gw or gateways.get(r.dst.version)),
            scope=r.scope or 0,
            table=r.table or TABLE_MAIN,
            priority=r.priority or 0,
            mtu=r.mtu or 0,
            advmss=r.advmss or 0,
        )
        for r in ipam.routes
    )


def _next_hop(address: IPAddress | None) -> IPAddress | None:
    return None if address is None or address.is_unspecified else address


def _masquerade(conf: NetConf, ipam: Result) -> tuple[IPNetwork, ...]:
    if not conf.ip_masq:
        return ()
    return _unique(tuple(ip.address.network for ip in ipam.ips))


def _interfaces(host: Link, pod: Link, request: Request) -> tuple[Interface, ...]:
    return (
        Interface(host.name, host.mac or "", host.mtu or 0),
        Interface(pod.name, pod.mac or "", pod.mtu or 0, request.netns),
    )


def _result(interfaces: tuple[Interface, ...], conf: NetConf, ipam: Result) -> Result:
    last = len(interfaces) - 1
    ips = tuple(IPConfig(ip.address, ip.gateway, last) for ip in ipam.ips)
    return Result(interfaces, ips, ipam.routes, _dns(conf, ipam))


def _dns(conf: NetConf, ipam: Result) -> dict[str, object]:
    """The dns capability outranks the configuration's dns, which outranks IPAM's."""
    asked, own = render_dns(conf.runtime_config.dns), render_dns(conf.dns)
    return asked or own or dict(ipam.dns)
