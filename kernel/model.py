"""Typed nouns of the kernel's network state; all frozen, all plain values.

A `Plan` is everything that one attachment should have.  ADD applies it, CHECK compares it with the
kernel, DEL and GC apply its removal.  `Space` is one network namespace's share of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

# Route protocol (linux/rtnetlink.h, rtm_protocol; 5-255 are free for routing daemons to take):
# the mark on every node-side route that podwire owns, and on the gateways that it gives to bridges.
RTPROT_PODWIRE = 112
# The same for routes to other nodes' pods, which the daemon alone makes and removes.
RTPROT_PODWIRE_PEERS = 113
RTPROT_KERNEL, RTPROT_BOOT = 2, 3

# The beginning of the names of node-side links.
HOST_LINK_PREFIX = "pw"

SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
TABLE_MAIN, TABLE_LOCAL = 254, 255


@dataclass(frozen=True, slots=True)
class Port:
    """A link's membership in a bridge; bridge is empty where it should have no master.

    blocks: whether it forwards nothing now, by its state, which no plan asks for.
    """

    bridge: str
    hairpin: bool = False
    isolated: bool = False
    blocks: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device's tunnel (RFC 7348). uplink: the device that encapsulated packets leave by.

    local: this node's VTEP, the source address of encapsulated packets; port: UDP destination.
    learning: whether received packets make FDB entries; udp_checksum: whether the outer UDP
    checksum is filled in. podwire's devices do neither.
    """

    vni: int
    port: int
    local: IPAddress
    uplink: str
    learning: bool = False
    udp_checksum: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. mtu in bytes; None or 0 where the plan leaves the value to the kernel.

    arp: whether it resolves neighbours (not IFF_NOARP). allmulti: whether it receives all multicast
    frames (IFF_ALLMULTI). queue_length: packets of its transmit queue. None leaves them open.
    """

    name: str
    kind: str = "veth"
    mac: str | None = None
    mtu: int | None = None
    up: bool = True
    alias: str | None = None
    port: Port | None = None
    promisc: bool = False
    index: int = 0
    vxlan: Vxlan | None = None
    arp: bool | None = None
    allmulti: bool | None = None
    queue_length: int | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """What a link has received (rx) and sent (tx) since it was made, in the kernel's order."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """An address on a link. prefix_route: whether the kernel adds the subnet's route itself.

    protocol: who added it (IFA_PROTO, since Linux 5.18); 0 where that is unknown. dad: whether it
    is used only after no neighbour has said that it has it (RFC 4862, of IPv6).
    """

    link: str
    address: IPInterface
    prefix_route: bool = True
    protocol: int = 0
    dad: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A route. priority, mtu, advmss: 0 = the kernel's default. via None = on-link.

    onlink: the next hop is taken to be on the link, whatever its address says. local: packets to it
    are the node's own, as to its addresses (RTN_LOCAL).
    """

    dst: IPNetwork
    link: str
    via: IPAddress | None = None
    src: IPAddress | None = None
    scope: int = SCOPE_UNIVERSE
    table: int = TABLE_MAIN
    priority: int = 0
    mtu: int = 0
    advmss: int = 0
    protocol: int = RTPROT_BOOT
    onlink: bool = False
    local: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A policy routing rule; rules are asked in the order of their priority.

    action: "lookup" of the table, or what is done with the packet ("prohibit"). src, dst: None =
    any; iif: the link that a packet comes in by, empty = any. more: further selectors.
    inverted: whether it catches what the selectors do not.
    """

    version: int
    priority: int
    action: str
    table: int = 0
    src: IPNetwork | None = None
    dst: IPNetwork | None = None
    iif: str = ""
    inverted: bool = False
    more: str = ""

    def __str__(self) -> str:
        parts = ["not"] if self.inverted else []
        parts.append(f"from {self.src or 'all'}")
        parts += [f"to {self.dst}"] if self.dst else []
        parts += [f"iif {self.iif}"] if self.iif else []
        parts += [self.more] if self.more else []
        table = f" {self.table}" if self.action == "lookup" else ""
        return f"{self.priority}: {' '.join(parts)} {self.action}{table}"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A next hop's MAC on a link, known for good: never asked for, never forgotten."""

    link: str
    address: IPAddress
    mac: str


@dataclass(frozen=True, slots=True)
class FdbEntry:
    """A VXLAN device's forwarding entry: frames to mac go to the VTEP at the address dst.

    more: where it departs from the device, as iproute2 shows it ("port 9999"); podwire's never do.
    """

    link: str
    mac: str
    dst: IPAddress
    more: str = ""


Entry = Route | Neighbour | FdbEntry
"""What leads to another node."""


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A kernel setting; path below /proc/sys. required=False: absent or unwritable is no error."""

    path: str
    value: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """What limits how fast a link sends: tbf as its root queueing discipline (tc-tbf(8)).

    rate in bytes a second. buffer: how much may go at once, as the time that it takes at that rate
    in ticks of 64 ns (linux/pkt_sched.h, PSCHED_SHIFT). limit: bytes that may wait, others are
    dropped.
    """

    link: str
    rate: int
    buffer: int
    limit: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """All that a link receives is first sent by another one, an ifb device, which limits it.

    to: empty where that one is gone; the packets are dropped then.
    """

    link: str
    to: str


@dataclass(frozen=True, slots=True)
class Element:
    """One element of an nft set. key_end is set for intervals; keys in the kernel's byte layout.

    tree: whether the kernel keeps start and end as elements of their own (nft_set_rbtree.c).
    data: what a map leads the key to; None in a set. A map has one element of a key.
    """

    family: str
    set_name: str
    key: bytes
    key_end: bytes | None = None
    tree: bool = False
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class ChainRules:
    """The rules of one chain of podwire's nft tables, each by a digest of what it is to be."""

    family: str
    chain: str
    digests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """A pod's addresses, whose forwarded packets the filters of other programs are to accept.

    backend: iptables, firewalld, or empty for firewalld where it runs and else iptables. zone: of
    firewalld. admin_chain: of iptables, with rules of the administrator's that go before.
    """

    addresses: tuple[IPAddress, ...]
    backend: str = ""
    zone: str = ""
    admin_chain: str = ""


@dataclass(frozen=True, slots=True)
class Space:
    """What one network namespace holds of a plan."""

    links: tuple[Link, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    buckets: tuple[TokenBucket, ...] = ()
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge that an attachment needs; it outlives the attachment. Gateways go on it.

    sysctls: its own, that it needs before it gets the gateways.
    """

    name: str
    mtu: int | None = None
    promisc: bool = False
    gateways: tuple[IPInterface, ...] = ()
    force_address: bool = False
    sysctls: tuple[Sysctl, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one attachment has: a veth pair, its node side, its pod side, its rules.

    node.links[0] and pod.links[0] are the two ends of the pair; further links of the node are ifb
    devices.  elements belong to this attachment alone; masquerade lists prefixes whose rules are
    shared by the whole network.  waiting: mappings of ports that another attachment of the
    container has; they become elements when that one goes.
    """

    node: Space
    pod: Space
    bridge: Bridge | None = None
    elements: tuple[Element, ...] = ()
    masquerade: tuple[IPNetwork, ...] = field(default=())
    waiting: tuple[Element, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What one plugin of a chain, or one feature, adds to an attachment's plan.

    name: the plugin's. node.links: links that it makes. pod.links: the attachment's own, with the
    traits that the piece gives it. original: that link as it was before; None where it was not
    another's. acceptance: of the pod's addresses by filters of other programs. waiting: as in
    `Plan`.
    """

    name: str
    node: Space = Space()
    pod: Space = Space()
    elements: tuple[Element, ...] = ()
    original: Link | None = None
    acceptance: Acceptance | None = None
    waiting: tuple[Element, ...] = ()
