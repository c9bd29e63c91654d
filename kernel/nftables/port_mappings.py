"""Host ports: the part of the table `inet podwire` that leads the node's ports to pods.

Packet path: a new connection to an address of the node (`fib daddr type local`, so never one that
only passes through) is looked up by address, protocol and port, then by protocol and port alone,
and translated; the daemon's own ports are not. On its way out it is masqueraded where the answer
would not come back by this node: from the node's loopback, back by the link that it came from, or
always where that is configured.
Each mapping is one element of a map: a packet costs the same whatever their number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_address

from kernel.conntrack import Flow, forget_flows_to_node
from kernel.model import Element, IPAddress, IPNetwork
from kernel.nftables.masquerade import hairpin_element
from kernel.nftables.table import (
    ADDRESS_TYPES,
    Chain,
    Set,
    Table,
    disjoint,
    link_key,
    link_of_key,
)

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
"""Numbers of the protocols that have ports (IANA)."""
UDP = PROTOCOLS["udp"]

HOST_PORT_PRIORITY = -99
"""Of the chains that lead to pods: behind what others have at `dstnat` (linux/netfilter_ipv4.h,
NF_IP_PRI_NAT_DST), such as Services at a node's address, which the reference leaves first as well.
Of equal priority the chain that was made last would be the first.
"""
_KEY = ("inet_proto", "inet_service")

BY_ADDRESS = {
    v: Set("inet", f"host_ports{v}", (a, *_KEY), data=(a, "inet_service"))
    for v, a in ADDRESS_TYPES.items()
}
ANY_ADDRESS = {
    v: Set("inet", f"any_host_ports{v}", _KEY, data=(a, "inet_service"))
    for v, a in ADDRESS_TYPES.items()
}
LOOPBACK = Set("inet", "from_loopback4", ("ifname", "ipv4_addr"))
SAME_LINK = {
    v: Set("inet", f"same_link{v}", ("ifname", "ifname", a)) for v, a in ADDRESS_TYPES.items()
}
ALWAYS = {v: Set("inet", f"always_masq{v}", ("ifname", a)) for v, a in ADDRESS_TYPES.items()}
NOT_CAPTURED = {
    v: Set("inet", f"not_captured{v}", (a,), interval=True) for v, a in ADDRESS_TYPES.items()
}
RESERVED = Set("inet", "reserved_ports", _KEY)
EXCLUSION_SETS = (*NOT_CAPTURED.values(), RESERVED)
SETS = (
    *BY_ADDRESS.values(),
    *ANY_ADDRESS.values(),
    LOOPBACK,
    *SAME_LINK.values(),
    *ALWAYS.values(),
)
"""The sets that attachments have elements in."""

# IPv6's loopback is left out: no packet of ::1 leaves the node (RFC 4291 section 2.5.3).
_CAPTURE = (
    "fib daddr type != local accept",
    "meta l4proto . th dport @reserved_ports accept",
    "ip daddr @not_captured4 accept",
    "ip6 daddr @not_captured6 accept",
    "ip6 daddr ::1 accept",
    "dnat ip to ip daddr . meta l4proto . th dport map @host_ports4",
    "dnat ip6 to ip6 daddr . meta l4proto . th dport map @host_ports6",
    "dnat ip to meta l4proto . th dport map @any_host_ports4",
    "dnat ip6 to meta l4proto . th dport map @any_host_ports6",
)

PART = Table(
    "inet",
    sets=(*SETS, *EXCLUSION_SETS),
    chains=(
        # route_localnet, which a connection from loopback needs, would let pods reach what listens
        # on the node's loopback alone (CVE-2020-8558).
        Chain(
            "loopback",
            "type filter hook prerouting priority raw",
            ('iifname != "lo" ip daddr 127.0.0.0/8 drop',),
        ),
        *(
            Chain(name, f"type nat hook {hook} priority {HOST_PORT_PRIORITY}", _CAPTURE)
            for name, hook in (("host_ports", "prerouting"), ("own_host_ports", "output"))
        ),
        Chain(
            "host_ports_out",
            "type nat hook postrouting priority srcnat",
            (
                "ct status & dnat == 0 accept",
                "ip saddr 127.0.0.0/8 oifname . ip daddr @from_loopback4 masquerade",
                "oifname . ip daddr @always_masq4 masquerade",
                "oifname . ip6 daddr @always_masq6 masquerade",
                "iifname . oifname . ip daddr @same_link4 masquerade",
                "iifname . oifname . ip6 daddr @same_link6 masquerade",
            ),
        ),
    ),
)


def mapping_element(
    protocol: str, host: IPAddress | None, host_port: int, pod: IPAddress, pod_port: int
) -> Element:
    """The element that leads a port of the node to a pod's. host: None for all addresses."""
    key = _port_key(protocol, host_port)
    data = pod.packed + _padded(pod_port.to_bytes(2))
    if host is None:
        return ANY_ADDRESS[pod.version].element(key, data=data)
    return BY_ADDRESS[pod.version].element(host.packed + key, data=data)


def mappings_of(elements: Iterable[Element]) -> list[Element]:
    """The mappings among an attachment's elements."""
    return [element for element in elements if element.data is not None]


def _port_key(protocol: str, port: int) -> bytes:
    return _padded(bytes([PROTOCOLS[protocol]])) + _padded(port.to_bytes(2))


def _padded(field: bytes) -> bytes:
    # A field of a concatenation is padded to 32 bits (linux/netfilter/nf_tables.h).
    return field.ljust(4, b"\0")


def return_elements(link: str, pod: IPAddress, *, always: bool) -> tuple[Element, ...]:
    """The elements by which connections to a pod's mapped ports are masqueraded.

    link: the node's link that leads to the pod. always: whatever their source; else those whose
    answer would not come back by this node.
    """
    name = link_key(link)
    if always:
        return (ALWAYS[pod.version].element(name + pod.packed),)
    # Where bridges pass their packets to iptables (bridge-nf-call-iptables) a packet does not come
    # in by the bridge, and answers come back by this node but for the pod's own.
    same = SAME_LINK[pod.version].element(name * 2 + pod.packed), hairpin_element(link, pod)
    return (LOOPBACK.element(name + pod.packed), *same) if pod.version == 4 else same


def route_localnet(link: str) -> str:
    """The setting of a link that leads to a pod with mapped ports of IPv4.

    Without it no packet of the node's loopback is sent there (net/ipv4/route.c,
    ip_route_output_key_hash_rcu).
    """
    return f"net/ipv4/conf/{link}/route_localnet"


def links_of_loopback(elements: Iterable[Element]) -> set[str]:
    """The links that have that setting for what these elements masquerade, among others."""
    names = (LOOPBACK.name, ALWAYS[4].name)
    return {link_of_key(element.key) for element in elements if element.set_name in names}


def exclusion_elements(prefixes: Iterable[IPNetwork]) -> frozenset[Element]:
    """The elements for addresses of the node that no mapping captures."""
    return frozenset(
        NOT_CAPTURED[p.version].element(p.network_address.packed, p.broadcast_address.packed)
        for p in disjoint(prefixes)
    )


def reserved_elements(ports: Iterable[tuple[str, int]]) -> frozenset[Element]:
    """The elements for ports (protocol, number) of the node that no mapping may have."""
    return frozenset(RESERVED.element(_port_key(*port)) for port in ports)


def is_reserved(mapping: Element, reserved: Collection[Element]) -> bool:
    """Whether a mapping is for one of the node's reserved ports; False for other elements."""
    return mapping.data is not None and RESERVED.element(mapping.key[-8:]) in reserved


def flow_of(element: Element) -> Flow | None:
    """The connections that a mapping's element translates; None for other elements."""
    if element.data is None:
        return None
    version = 4 if element.set_name.endswith("4") else 6
    host = element.key[:-8]
    return Flow(version, *_port_of(element.key), ip_address(host) if host else None)


def _port_of(key: bytes) -> tuple[int, int]:
    """The protocol's number and the port at the end of a key."""
    return key[-8], int.from_bytes(key[-4:-2])


def describe_port(element: Element) -> str:
    """The node's port of a mapping, for people: "8080/tcp", "192.0.2.11 8080/tcp"."""
    flow = flow_of(element)
    if flow is None:
        return ""
    name = next(name for name, number in PROTOCOLS.items() if number == flow.protocol)
    return f"{flow.address or ''} {flow.port}/{name}".strip()


def pod_of(element: Element) -> IPAddress | None:
    """The pod that a mapping's element leads to; None for other elements."""
    return ip_address(element.data[:-4]) if element.data else None


def pod_port_of(element: Element) -> int:
    """The pod's port that a mapping's element leads to; 0 for other elements."""
    return int.from_bytes(element.data[-4:-2]) if element.data else 0


def find_mapping(
    elements: Iterable[Element], protocol: int, to: IPAddress, port: int
) -> Element | None:
    """The mapping that translates a connection to that address of the node, among other elements.

    One of a certain address is looked up first.
    """
    found = None
    for element in elements:
        flow = flow_of(element)
        wanted = (to.version, protocol, port)
        if flow and (flow.version, flow.protocol, flow.port) == wanted:
            if flow.address == to:
                return element
            found = element if flow.address is None else found
    return found


def forget_datagrams(elements: Iterable[Element]) -> None:
    """Delete the node's tracked UDP flows to the ports of these mappings, among other elements.

    While a sender goes on, its flow would lead to where it led before: to the pod that had the port
    earlier, or to none. Raises KernelError.
    """
    flows = filter(None, map(flow_of, elements))
    forget_flows_to_node(flow for flow in flows if flow.protocol == PROTOCOLS["udp"])


def forget_reserved(elements: Iterable[Element]) -> None:
    """Delete the tracked UDP flows to ports that are reserved from now on, among other elements.

    A pod may have had such a port, and flows to it would go on. Raises KernelError.
    """
    ports = [_port_of(e.key) for e in elements if e.set_name == RESERVED.name]
    forget_flows_to_node(
        Flow(v, UDP, port) for kind, port in ports if kind == UDP for v in ADDRESS_TYPES
    )
