"""What the plans of both modes have in common; pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TypeVar

from cni_plugin.config import LEASING, MAC, NetConf
from cni_plugin.errors import DELEGATE_FAILED, INVALID_CONFIG, INVALID_ENVIRONMENT, CniError
from cni_plugin.names import Mark, host_link_name, link_local, node_mac, pod_mac, render_alias
from cni_plugin.plugins.portmap import plan_port_mappings
from cni_plugin.request import Request
from cni_plugin.result import Interface, IPConfig, Result, canonical_mac, render_dns
from cni_plugin.shape import Shape
from ipam.ranges import interface_of
from ipam.transaction import Owner
from kernel.model import (
    TABLE_MAIN,
    Address,
    Element,
    IPAddress,
    IPInterface,
    IPNetwork,
    Link,
    Port,
    Route,
    Space,
    Sysctl,
)
from kernel.netlink.codec import mac_bytes
from kernel.nftables.masquerade import hairpin_element
from kernel.nftables.spoof_check import source_check_elements

T = TypeVar("T")
# The kernel asks the link that a packet came in by whether to forward IPv4 (ip_route_input_slow),
# and asks for IPv6 neighbours from the link's link-local address, which addr_gen_mode 1 leaves out.
_ROUTED = {4: (("forwarding", "1"),), 6: (("disable_ipv6", "0"), ("addr_gen_mode", "0"))}
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def with_gateways(ipam: Result) -> Result:
    """Each address with a gateway: the subnet's first address where IPAM named none.

    Raises code 104 where that is no other address of the subnet.
    """
    if all(ip.gateway for ip in ipam.ips):
        return ipam
    own = {ip.address.ip for ip in ipam.ips}
    ips = (IPConfig(ip.address, ip.gateway or _first_address(ip.address, own)) for ip in ipam.ips)
    return replace(ipam, ips=tuple(ips))


def _first_address(address: IPInterface, own: Collection[IPAddress]) -> IPAddress:
    network = address.network
    if network.num_addresses == 1 or network[1] in own:
        msg = f"the IPAM plugin named no gateway for {address}"
        raise CniError(DELEGATE_FAILED, msg, "the subnet's first address is the pod's own, or none")
    return network[1]


def plan_ports(
    conf: NetConf, link: str, ipam: Result
) -> tuple[tuple[Element, ...], tuple[Sysctl, ...]]:
    """Elements and settings of the node for the mapped ports. link: that leads to the pod."""
    if not conf.port_map.mappings:
        return (), ()
    return plan_port_mappings(conf.port_map, link, (ip.address.ip for ip in ipam.ips))


def hairpins(shape: Shape, link: str, ipam: Result) -> tuple[Element, ...]:
    """The elements by which the pod reaches itself through a translated address."""
    if not shape.masquerade_hairpin:
        return ()
    return tuple(hairpin_element(link, ip.address.ip) for ip in ipam.ips)


def source_checks(
    conf: NetConf, shape: Shape, ipam: Result, host: Link, pod: Link
) -> tuple[Element, ...]:
    """The elements that hold the pod to its addresses."""
    if not shape.source_check or not ipam.ips:
        return ()
    addresses = [ip.address.ip for ip in ipam.ips]
    addresses += [link_local(pod.mac)] if pod.mac else []
    if shape.delegate in LEASING:
        # What a DHCP client sends from without a lease, and to bind one anew (RFC 2131 4.4.5).
        addresses.append(IPv4Address(0))
    prefixes = conf.allowed_source_prefixes
    return source_check_elements(host.name, addresses, prefixes, bridged=shape.mode == "bridge")


def unique_gateways(ipam: Result) -> tuple[IPAddress, ...]:
    """The gateways, each once."""
    return unique(tuple(ip.gateway for ip in ipam.ips if ip.gateway))


def unique(values: tuple[T, ...]) -> tuple[T, ...]:
    """The values, each once, in their order."""
    return tuple(dict.fromkeys(values)) if len(values) > 1 else values


def single(address: IPAddress) -> IPInterface:
    """The address as a subnet of its own."""
    return interface_of(address, address.max_prefixlen)


def plan_pair(
    request: Request,
    conf: NetConf,
    shape: Shape,
    ipam: Result,
    mtu: int,
    port: Port | None,
) -> tuple[Link, Link]:
    """The node's end and the pod's. port: of the bridge that the node's end is attached to."""
    owner = Owner(conf.name, request.container_id, request.ifname)
    addresses = tuple(ip.address for ip in ipam.ips)
    masquerade = bool(conf.ip_masq and addresses)
    rest = shape.delegate, request.pod, masquerade or shape.masquerade_hairpin
    mark = Mark(owner, addresses, masquerade, *rest)
    name, mac = host_link_name(owner), node_mac(owner)
    host = Link(name, mac=mac, mtu=mtu, alias=render_alias(mark), port=port)
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
    if not MAC.fullmatch(value):
        raise CniError(code, f"{key}: {value[:80]!r} is no MAC address like 02:11:22:33:44:55")
    mac = canonical_mac(value)
    raw = mac_bytes(mac)
    if raw[0] & 1 or not any(raw):
        raise CniError(
            code, f"{key}: {value!r} is no address for one interface (multicast or zero)"
        )
    return mac


def routed_sysctls(link: str, ipam: Result) -> tuple[Sysctl, ...]:
    """What a link needs to be pods' router, whatever it inherits from conf.default."""
    return tuple(
        Sysctl(f"net/ipv{version}/conf/{link}/{name}", value)
        for version in versions(ipam)
        for name, value in _ROUTED[version]
    )


def arp_sysctls(link: str, ipam: Result) -> tuple[Sysctl, ...]:
    """What a link needs to answer the pod's ARP for the gateway."""
    # The gateway has a subnet of its own: with 2 the kernel answers no ARP for it.
    return (Sysctl(f"net/ipv4/conf/{link}/arp_ignore", "0"),) if 4 in versions(ipam) else ()


def link_sysctls(host: Link) -> tuple[Sysctl, ...]:
    """What the node's end needs, in each mode."""
    # We own the routes of this link: no router, and no pod playing one, may announce others.
    names = ["accept_ra"]
    if host.port is None:
        # Its link-local address serves at once: without it no IPv6 is forwarded to the pod.
        names.append("accept_dad")
    path = f"net/ipv6/conf/{host.name}"
    return tuple(Sysctl(f"{path}/{name}", "0", required=False) for name in names)


def forwarding_sysctls(ipam: Result) -> tuple[Sysctl, ...]:
    """The node's settings to forward what pods send."""
    return tuple(Sysctl(_FORWARDING[v], "1") for v in versions(ipam))


def versions(ipam: Result) -> list[int]:
    """The families of the addresses, 4 and 6."""
    return sorted({ip.address.version for ip in ipam.ips})


def pod_addresses(
    link: str, ipam: Result, conf: NetConf, *, prefix_route: bool = True
) -> tuple[Address, ...]:
    """The addresses as the pod's link has them. prefix_route: as in `Address`."""
    return tuple(
        Address(link, ip.address, prefix_route, dad=conf.enable_dad and ip.address.version == 6)
        for ip in ipam.ips
    )


def pod_space(
    pod: Link,
    addresses: tuple[Address, ...],
    routes: tuple[Route, ...],
    ipam: Result,
    conf: NetConf,
) -> Space:
    """What the pod has: its link, addresses, routes and settings."""
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
        if conf.enable_dad:
            # A port in hairpin mode sends the pod's own question back: not to be taken for another.
            enhanced = f"net/ipv6/conf/{name}/enhanced_dad"
            settings.append(Sysctl(enhanced, "1", required=False))
    return Space((pod,), addresses, routes, tuple(settings))


def ipam_routes(link: str, ipam: Result) -> tuple[Route, ...]:
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


def masqueraded_prefixes(conf: NetConf, ipam: Result) -> tuple[IPNetwork, ...]:
    """The subnets whose packets are masqueraded beyond them."""
    if not conf.ip_masq:
        return ()
    return unique(tuple(ip.address.network for ip in ipam.ips))


def list_interfaces(host: Link, pod: Link, request: Request) -> tuple[Interface, ...]:
    """The pair as the result lists it."""
    return (
        Interface(host.name, host.mac or "", host.mtu or 0),
        Interface(pod.name, pod.mac or "", pod.mtu or 0, request.netns),
    )


def render_result(interfaces: tuple[Interface, ...], conf: NetConf, ipam: Result) -> Result:
    """The result to return; the pod's interface is the last one."""
    last = len(interfaces) - 1
    ips = tuple(IPConfig(ip.address, ip.gateway, last) for ip in ipam.ips)
    return Result(interfaces, ips, ipam.routes, _dns(conf, ipam))


def _dns(conf: NetConf, ipam: Result) -> dict[str, object]:
    """The dns capability outranks the configuration's dns, which outranks IPAM's."""
    asked, own = render_dns(conf.runtime_config.dns), render_dns(conf.dns)
    return asked or own or dict(ipam.dns)
